"""`jalign pipeline FILE`: commands one after another, such as a whole RLAIF run."""

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from jalign.cli import data, export, label, merge, prompts, revise, sample
from jalign.cli.pipeline_options import HELP, options_of
from jalign.config import algorithm_option, packaged
from jalign.config.read import ConfigError, load_yaml, read_config
from jalign.core import did_you_mean
from jalign.pipeline.process import Runner, locked
from jalign.pipeline.records import Records
from jalign.pipeline.run import run_stages
from jalign.pipeline.stages import Command, expand

_ADAPT = partial(algorithm_option.without_other_hyper, find=packaged.find)
COMMANDS = {
    "train": Command(read_config, adapt=_ADAPT),
    "sample": Command(sample.check_args, ".jsonl", ("model",)),
    "label": Command(label.check_args, ".jsonl"),
    "revise": Command(revise.check_args, ".jsonl"),
    "prompts": Command(prompts.check_args, ".jsonl"),
    "data": Command(data.check_args, ".jsonl", adapt=_ADAPT),
    "export": Command(export.check_args, "", ("run", "out")),
    "merge": Command(merge.check_args, "", ("out",), ("models", "weights")),
}
"""Commands that may be stages."""


def pipeline(args: Sequence[str], console: Console) -> int:
    """Run the stages of a file; returns the exit code of the last one that ran."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    if {"-h", "--help"} & set(args):
        say(HELP)
        return 0
    options = options_of(args)
    file = load_yaml(packaged.find(options.file))
    values = file.get("values")
    for name, value in values.items() if isinstance(values, dict) else ():
        if str(value).startswith("configs/"):  # files that ship with jalign, in a wheel elsewhere
            file["values"][name] = packaged.find(value)
    # checks the options of every stage: a typo in the last must not cost the hours before it
    stages = expand(file, options.values, options.overrides, COMMANDS)
    names = [stage.name for stage in stages]
    for name in options.redo:
        if name not in names:
            raise ConfigError(f"--redo: no stage {name!r}{did_you_mean(name, names)}")
    # before `out` exists: a dry run writes nothing
    if options.dry_run:
        for stage in stages:
            print(shlex.join(["jalign", *stage.args]))
        return 0
    out = Path(options.values.get("out") or file["out"])
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, say) as lock:
        return run_stages(stages, Records(out, stages), Runner(lock), say, options.redo)
