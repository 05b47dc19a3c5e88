"""A pipeline file expanded into commands: names resolved, loops unrolled, every option checked.

    out: runs/mine
    values: {model: embedded}
    stages:
      candidates:
        sample: {model: $model, file: embedded, responses: 2, temperature: 1.0}
      labels:
        label: {file: $candidates, judge: {model: $model}}

A stage is a command with its options, nested or dotted. It writes OUT/NAME, a folder, or
OUT/NAME.jsonl. `$name` is the output of the latest earlier stage of that name, or else a value;
`$$` is a literal dollar. A loop is `{iterations: N, stages: {...}}`: its stages run N times, in
OUT/LOOP/1, OUT/LOOP/2 ..., and see `$iteration`. A stage `model` of a loop that takes `$model`
thus continues from the previous iteration, the first from the stage or value `model` before the
loop.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jalign import store
from jalign.options.errors import ConfigError
from jalign.pipeline.names import Binding, as_word, check_name, resolve
from jalign.signatures import did_you_mean

KEYS = ("out", "values", "stages")

Options = dict[str, str]
Overrides = Mapping[str, Mapping[str, str]]
"""Name of a stage or loop -> option -> the command line's value, instead of the file's."""


class Command(NamedTuple):
    """A command that can be a stage.

    Attributes:
      check: reads the arguments; raises ValueError for wrong ones.
      ending: of the file it writes; empty: it writes a folder.
      words: options that are positional on the command line, in order.
      lists: options that take several words.
      adapt: `(options, overrides) -> options, messages`: options of the file that still apply when
        those of the command line override them.
    """

    check: Callable[[list[str]], object]
    ending: str = ""
    words: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    adapt: Callable[[Options, Mapping[str, str]], tuple[Options, list[str]]] | None = None


class Stage(NamedTuple):
    """A command and its dependencies.

    Attributes:
      name: unique; LOOP/ITERATION/NAME in a loop.
      args: command and arguments.
      out: file or folder that it writes.
      needs: names of the stages whose output it reads.
      config: SHA-256 of the config file that it names, if any.
    """

    name: str
    args: list[str]
    out: Path
    needs: list[str]
    config: str | None


def expand(
    file: Mapping[str, object],
    values: Mapping[str, object],
    overrides: Overrides,
    commands: Mapping[str, Command],
) -> list[Stage]:
    """The stages of a pipeline in the order in which they run.

    Args:
      file: the content of the YAML file.
      values: instead of those in the file; `out` among them.

    Raises:
      ConfigError: naming the key in the file, what is wrong, and the nearest match.
    """
    _check_keys(file, KEYS, "a pipeline has no key")
    file_values = _mapping(file.get("values") or {}, "values")
    for name in file_values:
        check_name(name, "value")
    _check_keys(values, ("out", *file_values), "the pipeline has no value")
    names = {name: Binding(values.get(name, value)) for name, value in file_values.items()}
    out = values.get("out", file.get("out"))
    if not isinstance(out, str) or not out:
        raise ConfigError(f"a pipeline needs out, a folder, got {out!r}")
    expansion = _Expansion(store.local(out, "the folder of a pipeline"), names, overrides, commands)
    expansion.add(_mapping(file.get("stages"), "stages"), "")
    if not expansion.stages:
        raise ConfigError("a pipeline needs stages")
    _check_keys(overrides, expansion.stage_names, "the pipeline has no stage")
    return expansion.stages


class _Expansion:
    """The stages expanded so far, and the values of names at this point of the file."""

    def __init__(
        self,
        out: Path,
        names: dict[str, Binding],
        overrides: Overrides,
        commands: Mapping[str, Command],
    ):
        self.out, self.names, self.overrides, self.commands = out, names, overrides, commands
        self.stages: list[Stage] = []
        self.stage_names: set[str] = set()
        self._printed: set[str] = set()

    def add(self, stages: Mapping[str, Any], prefix: str) -> None:
        for name, body in stages.items():
            check_name(name, "stage")
            self.stage_names.add(name)
            body = _mapping(body, prefix + name)
            if "iterations" in body:
                self._add_loop(name, body, prefix)
            else:
                self._add_stage(name, body, prefix)

    def _add_loop(self, name: str, body: Mapping[str, Any], prefix: str) -> None:
        path = prefix + name
        _check_keys(body, ("iterations", "stages"), f"the loop {path} has no key")
        override = self.overrides.get(name, {})
        _check_keys(override, ("iterations",), f"the loop {path} has no option")
        n = override.get("iterations", body["iterations"])
        if not str(n).isdecimal() or int(n) < 1:
            raise ConfigError(f"{path}.iterations must be an integer above 0, got {n!r}")
        # Loops nest: behind an inner loop the outer counter is back.
        outer = self.names.get("iteration")
        for i in range(1, int(n) + 1):
            self.names["iteration"] = Binding(i)
            self.add(_mapping(body.get("stages"), f"{path}.stages"), f"{path}/{i}/")
        self.names.pop("iteration")
        self.names |= {"iteration": outer} if outer else {}

    def _add_stage(self, name: str, body: Mapping[str, Any], prefix: str) -> None:
        path = prefix + name
        if len(body) != 1:
            raise ConfigError(f"{path} must be one command with its options, got {[*body]}")
        ((command_name, content),) = body.items()
        _check_keys(body, self.commands, f"{path}: no stage is a command")
        command, needs = self.commands[command_name], set[str]()
        content = _mapping(content, f"{path}.{command_name}")
        content = dict(resolve(content, path, self.names, needs))
        override = self.overrides.get(name, {})
        lists = {
            key: content.pop(key) for key in command.lists if key in content and key not in override
        }
        options = self._overridden(_flat(content), override, command, path)
        if "out" in options:
            raise ConfigError(f"{path}: out follows from the pipeline's out and the stage's name")
        out = self.out / f"{path}{command.ending}"
        args = _arguments(options | {"out": str(out)}, lists, command, f"{path}: {command_name}")
        try:
            # Every stage is parsed before the first runs: a typo in the last one costs no night.
            command.check(args)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{path}: {error}") from error
        config = options.get("config")
        digest = hashlib.sha256(Path(config).read_bytes()).hexdigest() if config else None
        self.stages.append(Stage(path, [command_name, *args], out, sorted(needs), digest))
        # Bound last: the stage itself may read the output of the previous iteration's namesake.
        self.names[name] = Binding(str(out), path)

    def _overridden(
        self, options: Options, override: Mapping[str, str], command: Command, path: str
    ) -> Options:
        if command.adapt and override:
            options, messages = command.adapt(options, override)
            for message in set(messages) - self._printed:  # once, not per iteration
                print(f"jalign: {path}: {message}", file=sys.stderr)
                self._printed.add(message)
        return {**options, **override}


def _arguments(
    options: Options, lists: Mapping[str, Any], command: Command, where: str
) -> list[str]:
    options = dict(options)
    if missing := [word for word in command.words if word not in options]:
        raise ConfigError(f"{where} needs {' and '.join(missing)}")
    args = [options.pop(word) for word in command.words]
    config = options.pop("config", None)
    args += ["--config", config] if config else []
    args += [f"--{key}={value}" for key, value in options.items()]
    for key, items in lists.items():
        args += [f"--{key}", *map(as_word, items if isinstance(items, list) else [items])]
    return args


def digest(stage: Stage, digests: Mapping[str, str]) -> str:
    """SHA-256 of a stage's definition, those of the stages that it needs included."""
    needs = {name: digests[name] for name in stage.needs}
    text = json.dumps([stage.args, stage.config, needs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(options: Mapping[str, Any], prefix: str = "") -> Options:
    """Nested options as words by dotted name. A mapping with keys that are not identifiers (files,
    functions) stays one word, as JSON.
    """
    out: Options = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and value and all(str(key).isidentifier() for key in value):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = as_word(value)
    return out


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a mapping, got {value!r:.80}")
    return value


def _check_keys(keys: Sequence[str] | Mapping[str, Any], allowed: Any, message: str) -> None:
    for key in keys:
        if key not in allowed:
            raise ConfigError(f"{message} {key!r}{did_you_mean(key, allowed)}")
