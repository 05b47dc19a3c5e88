"""Command line and YAML to a `Config`: jsonargparse does the work, this makes its errors
helpful.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser

from jalign.config import Config
from jalign.core import did_you_mean

T = TypeVar("T")


class ConfigError(ValueError):
    """The run was described wrongly; the message is for the person who wrote it."""


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key given twice is an error (PyYAML lets the last one win, silently)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise ConfigError(
                    f"{key_node.start_mark.name}: key {key!r} is given twice, "
                    f"line {key_node.start_mark.line + 1}"
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parser(command: str = "train") -> ArgumentParser:
    """The options of every command that takes a config."""
    result = _parser_of(Config, command)
    if command == "data":
        result.add_argument(
            "--to",
            type=str | None,
            default=None,
            help="a kind of data, or an algorithm: write the training data as what it reads to "
            "--out FILE.jsonl or .jsonl.gz instead of showing them",
        )
    return result


def read_config(args: Sequence[str], command: str = "train") -> Config:
    """`[CONFIG] [--dotted.key value ...]` as a checked `Config`; ConfigError says what is wrong."""
    return read_options(args, command)[0]


def read_options(args: Sequence[str], command: str) -> tuple[Config, Any]:
    """The config, and everything that the command was told, by name."""
    return parsed(parser(command), args, lambda values: (_made(Config, values), values))


def read_as(kind: type[T], args: Sequence[str], command: str) -> T:
    """`[CONFIG] [--dotted.key value ...]` as another config than that of a run."""
    return parsed(_parser_of(kind, command), args, lambda values: _made(kind, values))


def parsed(options: ArgumentParser, args: Sequence[str], make: Callable[[Any], T]) -> T:
    """What is made of a command's options; ConfigError says what is wrong with them.

    Where there is a --config, a first word that is no option is one.
    """
    args = list(args)
    with_config = any(action.dest == "config" for action in options._actions)
    if with_config and args and not args[0].startswith("-"):
        args = ["--config", *args]
    for i, arg in enumerate(args[:-1]):
        if with_config and arg == "--config":
            load_yaml(args[i + 1])
    try:
        return make(options.instantiate(options.parse_args(args)))
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        raise ConfigError(_explain(str(error), _keys(options))) from error


def _parser_of(kind: type, command: str) -> ArgumentParser:
    result = ArgumentParser(prog=f"jalign {command} [CONFIG]", exit_on_error=False)
    result.add_argument(
        "--config", action="config", help="YAML file; the options below override it"
    )
    result.add_class_arguments(kind, sub_configs=True)
    return result


def _made(kind: type[T], values: Any) -> T:
    return kind(**{field.name: getattr(values, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def load_yaml(path: str) -> dict[str, Any]:
    """A mapping from a file, in which no key is given twice."""
    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.load(file, _UniqueKeys)  # a SafeLoader
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path} is not UTF-8: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise ConfigError(
            f"config {path} must be a mapping of keys to values, got {type(found).__name__}"
        )
    return found


def _keys(options: ArgumentParser) -> list[str]:
    return [a.dest for a in options._actions if a.dest not in ("help", "config")]


def _explain(message: str, keys: Iterable[str]) -> str:
    """Add the nearest key to jsonargparse's message about one that does not exist."""
    keys = list(keys)
    group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
    unknown = re.search(r"unrecognized arguments: --([\w.]+)", message)
    option = re.search(r"Option '([\w.]+)' is not accepted", message)
    name = f"{group[1]}.{group[2]}" if group else (unknown or option or [None, None])[1]
    if name is None:
        return message
    top = name.split(".")[0]
    if top not in {k.split(".")[0] for k in keys}:
        return f"no option {top!r}{did_you_mean(top, {k.split('.')[0] for k in keys})}"
    return f"no option {name!r}{did_you_mean(name, [k for k in keys if k.startswith(top + '.')])}"
