"""Command line and YAML to a `Config`: jsonargparse does the work, this makes its errors
helpful.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import Any, NoReturn, TypeVar

import jax
from jsonargparse import ArgumentParser

from jalign.config import Config, algorithm_option, packaged
from jalign.config import help as config_help
from jalign.config.build import options_of
from jalign.config.yaml_file import ConfigError, load_yaml
from jalign.core import did_you_mean
from jalign.options import RunOptions
from jalign.options.renamed import refusal
from jalign.parallel import hosts

T = TypeVar("T")


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


def read_config(args: Sequence[str], command: str = "train") -> RunOptions:
    """The options of `[CONFIG] [--dotted.key value ...]`; ConfigError says what is wrong."""
    return read_options(args, command)[0]


def read_options(args: Sequence[str], command: str) -> tuple[RunOptions, Any]:
    """The options of the run, and everything that the command was told, by name."""
    make = lambda values: (options_of(_made(Config, values)), values)  # noqa: E731
    return parsed(parser(command), args, make)


def read_as(kind: type[T], args: Sequence[str], command: str) -> T:
    """`[CONFIG] [--dotted.key value ...]` as another config than that of a run."""
    return parsed(_parser_of(kind, command), args, lambda values: _made(kind, values))


def parsed(options: ArgumentParser, args: Sequence[str], make: Callable[[Any], T]) -> T:
    """What is made of a command's options; ConfigError says what is wrong with them.

    Where there is a --config, a first word that is no option is one.
    """
    args, names = list(args), {action.dest for action in options._actions}
    for arg in args:
        if renamed := refusal(arg.removeprefix("--").partition("=")[0]):
            raise ConfigError(renamed)
    if "config" in names and args and not args[0].startswith("-"):
        args = ["--config", *args]
    if "config" in names and config_help.wanted(args):
        _print_help(options, args)
    if {"config", "algorithm"} <= names:
        args = _with_algorithm(args)
    elif "config" in names:
        args = [
            packaged.find(arg) if before == "--config" else arg
            for before, arg in zip(["", *args], args, strict=False)
        ]
        for before, arg in pairwise(args):
            if before == "--config":
                load_yaml(arg)
    try:
        return make(options.instantiate(options.parse_args(args)))
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and not error.code:
            raise
        if re.search(r"required: algorithm\b", str(error)):
            raise ConfigError(_complete(options.prog.split()[1])) from error
        raise ConfigError(_explain(str(error), _keys(options))) from error


def _print_help(options: ArgumentParser, args: list[str]) -> NoReturn:
    words = [arg for arg in args if arg not in ("-h", "--help")]
    section = algorithm_option.resolved(words, packaged.find)[1]
    try:
        print(config_help.text(options, args, section.value.get("name")))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
    raise SystemExit(0)


def _with_algorithm(args: list[str]) -> list[str]:
    """The arguments with the algorithm's section in one piece."""
    args, section = algorithm_option.resolved(args, packaged.find)
    alone = not jax.distributed.is_initialized()
    for line in section.lines if alone or hosts.is_main() else ():
        print(f"jalign: {line}", file=sys.stderr)
    return args


def _complete(command: str) -> str:
    more = " --target v5e-8" if command == "plan" else ""
    return f"""no algorithm is named. These are complete commands:
  jalign {command} --algorithm dpo{more}    the model and data in the package
  jalign {command} quickstart{more}         one of the configs that jalign configs lists
  jalign {command} FILE.yaml{more}          your own: jalign init FILE.yaml writes one"""


def _parser_of(kind: type, command: str) -> ArgumentParser:
    result = ArgumentParser(
        prog=f"jalign {command} [CONFIG]", exit_on_error=False, allow_abbrev=False
    )
    result.add_argument(
        "--config", action="config", help="YAML file; the options below override it"
    )
    result.add_class_arguments(kind, sub_configs=True)
    return result


def _made(kind: type[T], values: Any) -> T:
    return kind(**{field.name: getattr(values, field.name) for field in fields(kind)})  # type: ignore[arg-type]


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
    if renamed := refusal(name):
        return renamed
    top = name.split(".")[0]
    if top not in {k.split(".")[0] for k in keys}:
        return f"no option {top!r}{did_you_mean(top, {k.split('.')[0] for k in keys})}"
    return f"no option {name!r}{did_you_mean(name, [k for k in keys if k.startswith(top + '.')])}"
