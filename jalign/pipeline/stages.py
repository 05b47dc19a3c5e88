"""A pipeline's file becomes commands: names are resolved, loops unrolled, every option checked.

    out: runs/mine
    values: {model: embedded}
    stages:
      candidates:
        sample: {model: $model, file: embedded, responses: 2, temperature: 1.0}
      labels:
        label: {file: $candidates, judge: {model: $model}}

A stage is a command with its options, nested or dotted. What it writes is OUT/NAME, a folder, or
OUT/NAME.jsonl. `$name` is the output of the last stage of that name before, or else a value; `$$`
is a dollar. A loop is `{iterations: N, stages: {...}}`: its stages run N times, in OUT/LOOP/1,
OUT/LOOP/2 ..., and see `$iteration`. So a stage `model` of a loop that takes `$model` goes on with
that of the iteration before, and the first with the stage or value `model` from before the loop.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from jalign import store
from jalign.cli import data, export, label, merge, prompts, revise, sample
from jalign.config import algorithm_option, read
from jalign.config.packaged import find
from jalign.config.read import ConfigError
from jalign.core import did_you_mean

KEYS = ("out", "values", "stages")


class Kind(NamedTuple):
    """What can be a stage.

    Attributes:
      check: reads the arguments; ValueError says what is wrong with them.
      ending: of what it writes; empty: a folder.
      words: options that stand without their name on a command line, in order.
      lists: options that take several words.
    """

    check: Callable[[list[str]], object]
    ending: str = ""
    words: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


KINDS = {
    "train": Kind(read.read_config),
    "sample": Kind(sample.check_args, ".jsonl", ("model",)),
    "label": Kind(label.read, ".jsonl"),
    "revise": Kind(revise.read, ".jsonl"),
    "prompts": Kind(prompts.read, ".jsonl"),
    "data": Kind(data.check_args, ".jsonl"),
    "export": Kind(export.check_args, "", ("run", "out")),
    "merge": Kind(merge.check_args, "", ("out",), ("models", "weights")),
}


class Stage(NamedTuple):
    """A command with what it needs.

    Attributes:
      name: unique; of a stage in a loop LOOP/ITERATION/NAME.
      args: command and arguments.
      out: file or folder that it writes.
      needs: names of the stages whose output it reads.
      config: SHA-256 of the config file that it names, if it does.
    """

    name: str
    args: list[str]
    out: Path
    needs: list[str]
    config: str | None


class _Bound(NamedTuple):
    """What `$name` stands for, and the stage that makes it."""

    value: Any
    stage: str | None = None


Overrides = Mapping[str, Mapping[str, str]]
"""Name of a stage or loop -> option -> what the command line says instead of the file."""


def plan(file: Mapping[str, Any], values: Mapping[str, Any], overrides: Overrides) -> list[Stage]:
    """The stages of a pipeline in the order in which they run.

    Args:
      file: what the YAML file holds.
      values: instead of those in the file; `out` among them.

    Raises:
      ConfigError: naming the place in the file, what is wrong there, and the nearest match.
    """
    _known(file, KEYS, "a pipeline has no key")
    own = _mapping(file.get("values") or {}, "values")
    for name in own:
        _name(name, "value")
    _known(values, ("out", *own), "the pipeline has no value")
    bound = {name: _Bound(values.get(name, value)) for name, value in own.items()}
    out = values.get("out", file.get("out"))
    if not isinstance(out, str) or not out:
        raise ConfigError(f"a pipeline needs out, a folder, got {out!r}")
    maker = _Plan(store.local(out, "the folder of a pipeline"), bound, overrides)
    maker.add(_mapping(file.get("stages"), "stages"), "")
    if not maker.stages:
        raise ConfigError("a pipeline needs stages, and there is none")
    _known(overrides, maker.seen, "the pipeline has no stage")
    return maker.stages


class _Plan:
    """Stages so far, and what their names stand for."""

    def __init__(self, out: Path, bound: dict[str, _Bound], overrides: Overrides):
        self.out, self.bound, self.overrides = out, bound, overrides
        self.stages: list[Stage] = []
        self.seen: set[str] = set()
        self.said: set[str] = set()

    def add(self, stages: Mapping[str, Any], before: str) -> None:
        for name, body in stages.items():
            _name(name, "stage")
            self.seen.add(name)
            body = _mapping(body, before + name)
            if "iterations" in body:
                self._loop(name, body, before)
            else:
                self._stage(name, body, before)

    def _loop(self, name: str, body: Mapping[str, Any], before: str) -> None:
        where = before + name
        _known(body, ("iterations", "stages"), f"the loop {where} has no key")
        more = self.overrides.get(name, {})
        _known(more, ("iterations",), f"of the loop {where} there is no option")
        n = more.get("iterations", body["iterations"])
        if not str(n).isdecimal() or int(n) < 1:
            raise ConfigError(f"{where}.iterations must be a whole number above 0, got {n!r}")
        outer = self.bound.get("iteration")
        for i in range(1, int(n) + 1):
            self.bound["iteration"] = _Bound(i)
            self.add(_mapping(body.get("stages"), f"{where}.stages"), f"{where}/{i}/")
        self.bound.pop("iteration")
        self.bound |= {"iteration": outer} if outer else {}

    def _stage(self, name: str, body: Mapping[str, Any], before: str) -> None:
        where = before + name
        if len(body) != 1:
            raise ConfigError(f"{where} must be one command with its options, got {[*body]}")
        ((command, given),) = body.items()
        _known(body, KINDS, f"{where}: no stage is a command")
        kind, needs = KINDS[command], set[str]()
        found = dict(self._resolved(_mapping(given, f"{where}.{command}"), where, needs))
        more = self.overrides.get(name, {})
        lists = {key: found.pop(key) for key in kind.lists if key in found and key not in more}
        options = {**self._without_numbers_of_another(_flat(found), more, where), **more}
        if "out" in options:
            raise ConfigError(f"{where}: out is given by the pipeline's out and the stage's name")
        path = self.out / f"{where}{kind.ending}"
        options["out"] = str(path)
        if missing := [word for word in kind.words if word not in options]:
            raise ConfigError(f"{where}: {command} needs {' and '.join(missing)}")
        args = [options.pop(word) for word in kind.words]
        config = options.pop("config", None)
        args += ["--config", config] if config else []
        args += [f"--{key}={value}" for key, value in options.items()]
        for key, several in lists.items():
            args += [f"--{key}", *map(_word, several if isinstance(several, list) else [several])]
        try:
            kind.check(args)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{where}: {error}") from error
        file = hashlib.sha256(Path(config).read_bytes()).hexdigest() if config else None
        self.stages.append(Stage(where, [command, *args], path, sorted(needs), file))
        self.bound[name] = _Bound(str(path), where)

    def _without_numbers_of_another(
        self, options: dict[str, str], more: Mapping[str, str], where: str
    ) -> dict[str, str]:
        """A stage's options without the numbers of its algorithm where another one is asked for."""
        new = more.get("algorithm.name", more.get("algorithm"))
        section = {key: x for key, x in options.items() if key.split(".")[0] == "algorithm"}
        if new is None or not section:
            return options
        args = [f"--{key}={value}" for key, value in section.items()]
        args = ["--config", options["config"], *args] if "config" in options else args
        before = algorithm_option.resolved(args, find)[1]
        if before.value.get("name") in (None, new):
            return options
        before.add({"name": new})
        for line in set(before.lines) - self.said:
            print(f"jalign: {where}: {line}", file=sys.stderr)
            self.said.add(line)
        return {key: value for key, value in options.items() if key not in section}

    def _resolved(self, value: Any, where: str, needs: set[str]) -> Any:
        """A value with every `$name` in it replaced; alone it keeps its type."""
        if isinstance(value, Mapping):
            return {
                self._resolved(str(key), where, needs): self._resolved(x, f"{where}.{key}", needs)
                for key, x in value.items()
            }
        if isinstance(value, list):
            return [self._resolved(x, where, needs) for x in value]
        if not isinstance(value, str):
            return value
        text = Template(value)
        if not text.is_valid():
            raise ConfigError(f"{where}: a $ that is no $name in {value!r}; $$ is a dollar")
        names = text.get_identifiers()
        for name in names:
            if name not in self.bound:
                near = did_you_mean(name, self.bound)
                raise ConfigError(f"{where}: ${name} is no value and no stage before it{near}")
            if stage := self.bound[name].stage:
                needs.add(stage)
        if names and value in (f"${names[0]}", f"${{{names[0]}}}"):
            return self.bound[names[0]].value
        return text.substitute({name: _word(self.bound[name].value) for name in names})


def digest(stage: Stage, digests: Mapping[str, str]) -> str:
    """SHA-256 of a stage's definition, those of the stages that it needs included."""
    needs = {name: digests[name] for name in stage.needs}
    text = json.dumps([stage.args, stage.config, needs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _flat(options: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested options as words of a command line by their dotted names. What has keys that are no
    names (files, functions) stays in one piece, as JSON.
    """
    out: dict[str, str] = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and value and all(str(key).isidentifier() for key in value):
            out |= _flat(value, f"{before}{name}.")
        else:
            out[before + name] = _word(value)
    return out


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a mapping, got {value!r:.80}")
    return value


def _name(name: Any, what: str) -> None:
    allowed = isinstance(name, str) and name.isascii() and name.isidentifier()
    if not allowed or name in ("out", "iteration"):
        raise ConfigError(
            f"{name!r} cannot be the name of a {what}: it must be of letters, digits and _, and "
            "neither out nor iteration"
        )


def _known(given: Sequence[str] | Mapping[str, Any], known: Any, what: str) -> None:
    for name in given:
        if name not in known:
            raise ConfigError(f"{what} {name!r}{did_you_mean(name, known)}")
