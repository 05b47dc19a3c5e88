"""`$name` in a pipeline file: values, and outputs of earlier stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from string import Template
from typing import Any, NamedTuple

from jalign.options.errors import ConfigError
from jalign.signatures import did_you_mean


class Binding(NamedTuple):
    """The value of a name, and the stage that produces it, if one does."""

    value: Any
    stage: str | None = None


def check_name(name: object, what: str) -> None:
    """Raise ConfigError unless a value or a stage may have this name."""
    allowed = isinstance(name, str) and name.isascii() and name.isidentifier()
    # `out` is the pipeline's folder, `iteration` the loop's counter: neither may be hidden.
    if not allowed or name in ("out", "iteration"):
        raise ConfigError(
            f"{name!r} cannot be the name of a {what}: use letters, digits and _, and neither out "
            "nor iteration"
        )


def resolve(value: object, where: str, names: Mapping[str, Binding], needs: set[str]) -> Any:
    """The value with every `$name` in it replaced; a `$name` alone keeps its type.

    Args:
      where: of the value in the file, for errors.
      needs: the stages whose output is read are added to it.

    Raises:
      ConfigError: a name is not defined before this point, or a `$` is stray.
    """
    if isinstance(value, Mapping):
        return {
            resolve(str(key), where, names, needs): resolve(x, f"{where}.{key}", names, needs)
            for key, x in value.items()
        }
    if isinstance(value, list):
        return [resolve(x, where, names, needs) for x in value]
    if not isinstance(value, str):
        return value
    # $name, as braces already mean something in YAML and in JSON options.
    text = Template(value)
    if not text.is_valid():
        raise ConfigError(f"{where}: stray $ in {value!r}; write $$ for a literal $")
    identifiers = text.get_identifiers()
    for name in identifiers:
        if name not in names:
            near = did_you_mean(name, names)
            raise ConfigError(f"{where}: ${name} is no value and no earlier stage{near}")
        if stage := names[name].stage:
            needs.add(stage)
    if identifiers and value in (f"${identifiers[0]}", f"${{{identifiers[0]}}}"):
        return names[identifiers[0]].value
    return text.substitute({name: as_word(names[name].value) for name in identifiers})


def as_word(value: object) -> str:
    """A value as a word of a command line."""
    return value if isinstance(value, str) else json.dumps(value)
