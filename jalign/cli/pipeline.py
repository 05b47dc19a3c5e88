"""`jalign pipeline FILE`: commands one after another, such as a whole RLAIF run.

A stage that ended is not run again; one that did not is given again, and goes on by itself.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from jalign.config.packaged import find
from jalign.config.read import ConfigError, load_yaml
from jalign.core import did_you_mean
from jalign.pipeline.process import Runner, locked
from jalign.pipeline.records import Records
from jalign.pipeline.stages import Stage, plan
from jalign.train.preemption import ExitCode

_HELP = """usage: jalign pipeline FILE [--VALUE X] [--STAGE.OPTION X] [--LOOP.iterations N] ...

Run the stages of a YAML file one after another: jalign commands, of which later ones read what
earlier ones wrote. Given again it goes on where it stopped. Exit codes are those of the stages.

  --VALUE X, --out DIR   instead of what the file has under values, or as out
  --STAGE.OPTION X       an option of a stage, in every iteration
  --LOOP.iterations N    how often a loop runs
  --redo STAGE           forget a stage and all that need it, delete what they wrote, and run them
                         again; give it once. Of a loop: LOOP/ITERATION/STAGE
  --dry-run              print the commands"""


class Options(NamedTuple):
    """What the command line says.

    Attributes:
      values: instead of the file's, `out` among them.
      overrides: stage or loop -> option -> text.
    """

    file: str
    values: dict[str, str]
    overrides: dict[str, dict[str, str]]
    redo: list[str]
    dry_run: bool


def pipeline(args: Sequence[str], console: Console) -> int:
    """Run the stages of a file; returns the exit code of the last one that ran."""
    if {"-h", "--help"} & set(args):
        console.print(_HELP, markup=False, highlight=False)
        return 0
    options = _options(args)
    file = load_yaml(find(options.file))
    values = file.get("values")
    for name, value in values.items() if isinstance(values, dict) else ():
        if str(value).startswith("configs/"):  # what comes with jalign, wherever that is
            values[name] = find(value)
    stages = plan(file, options.values, options.overrides)
    names = [stage.name for stage in stages]
    for name in options.redo:
        if name not in names:
            raise ConfigError(f"--redo: no stage {name!r}{did_you_mean(name, names)}")
    if options.dry_run:
        for stage in stages:
            print(shlex.join(["jalign", *stage.args]))
        return 0
    out = Path(options.values.get("out") or file["out"])
    out.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    with locked(out, say) as lock:
        return _run(stages, Records(out, stages), options.redo, Runner(lock), say)


def _run(
    stages: Sequence[Stage],
    records: Records,
    redo: Sequence[str],
    runner: Runner,
    say: Callable[[str], None],
) -> int:
    again = _dependent(stages, redo)
    for stage in stages:
        if stage not in again:
            records.check(stage)
    for stage in reversed(again):  # a kill in between leaves none that ended before one it needs
        records.forget(stage)
    for number, stage in enumerate(stages, 1):
        heading = f"[{number}/{len(stages)}] {stage.name}"
        if (seconds := records.seconds(stage)) is not None:
            if stage.out.exists():
                say(f"{heading}: done before, in {seconds:.0f} s")
                continue
            say(f"{heading}: done before, but {stage.out} is gone")
        elif records.ended_unseen(stage):
            say(f"{heading}: {stage.out} was written after the pipeline had been killed")
            records.end(stage, 0.0)
            continue
        say(f"{heading}: {shlex.join(['jalign', *stage.args])}")
        records.begin(stage)
        started = time.perf_counter()
        if code := runner.run(stage):
            say(
                f"{stage.name} ended with exit code {code}: given again, the pipeline goes on there"
            )
            return code
        records.end(stage, time.perf_counter() - started)
        if runner.told and number < len(stages):
            say(f"told to stop after {stage.name}: given again, the pipeline goes on")
            return int(ExitCode.PREEMPTED)
    say(f"all {len(stages)} stages are done: {stages[-1].out}")
    return 0


def _dependent(stages: Sequence[Stage], names: Sequence[str]) -> list[Stage]:
    """Stages of these names, and all that need them."""
    chosen = set(names)
    for stage in stages:  # each needs only stages before it
        if chosen & set(stage.needs):
            chosen.add(stage.name)
    return [stage for stage in stages if stage.name in chosen]


def _options(args: Sequence[str]) -> Options:
    words = list(args)
    if not words or words[0].startswith("-"):
        raise ConfigError("usage: jalign pipeline FILE [--name value ...]")
    found = Options(words.pop(0), {}, {}, [], "--dry-run" in words)
    words = [word for word in words if word != "--dry-run"]
    while words:
        word = words.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not (equals or words):
            raise ConfigError(f"options are --name value or --name=value, got {word!r}")
        value = value if equals else words.pop(0)
        stage, dot, option = name.partition(".")
        if name == "redo":
            found.redo.append(value)
        elif dot:
            found.overrides.setdefault(stage, {})[option] = value
        else:
            found.values[name] = value
    return found
