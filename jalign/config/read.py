"""Command line and YAML to option dataclasses: jsonargparse, with errors that name the nearest."""

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from typing import NoReturn, TypeVar

import jax
from jsonargparse import ArgumentParser, Namespace

from jalign.config import Config, algorithm_option, packaged
from jalign.config import help as config_help
from jalign.config.build import options_of
from jalign.config.yaml_file import load_yaml
from jalign.core import did_you_mean
from jalign.options import RunOptions
from jalign.options.errors import ConfigError
from jalign.options.renamed import refusal
from jalign.parallel import hosts
from jalign.signatures import nearest

__all__ = [
    "ConfigError",
    "load_yaml",
    "option_names",
    "parsed",
    "parser",
    "read_as",
    "read_config",
    "read_options",
]

T = TypeVar("T")
AddOptions = Callable[[ArgumentParser], object]
"""Adds a command's own options to those of a run."""


def parser(command: str = "train", add: AddOptions = lambda _: None) -> ArgumentParser:
    """The parser of a command that takes the config of a run, and perhaps options of its own."""
    # no abbreviations: one would change its meaning when a key is added
    result = ArgumentParser(
        prog=f"jalign {command} [CONFIG]", exit_on_error=False, allow_abbrev=False
    )
    result.add_argument(
        "--config", action="config", help="YAML file; the options below override it"
    )
    result.add_class_arguments(Config, sub_configs=True)
    add(result)
    return result


def read_config(args: Sequence[str], command: str = "train") -> RunOptions:
    """The options of `[CONFIG] [--dotted.key value ...]`.

    Raises:
      ConfigError: an unknown key, a bad value, or options that do not go together.
    """
    return read_options(args, command)[0]


def read_options(
    args: Sequence[str], command: str, add: AddOptions = lambda _: None
) -> tuple[RunOptions, Namespace]:
    """The options of a run, and every value by name: those that `add` declares are there too."""
    build = lambda values: (options_of(_instance(Config, values)), values)  # noqa: E731
    return parsed(parser(command, add), args, build)


def read_as(
    kind: type[T], args: Sequence[str], command: str, words: Mapping[str, str | None] | None = None
) -> T:
    """The command line of a command whose options are the fields of a dataclass.

    Args:
      words: fields given as positional words -> their nargs; None: there are none, and a YAML file
        may be given first, `[CONFIG] [--key value ...]`.

    Raises:
      ConfigError: as `read_config`.
      ValueError: what the dataclass refuses, where its fields are given as words.
    """
    if words is None:
        return parsed(_file_parser(kind, command), args, lambda values: _instance(kind, values))
    return _instance(kind, parsed(_word_parser(kind, command, words), args))


def _file_parser(kind: type, command: str) -> ArgumentParser:
    result = ArgumentParser(
        prog=f"jalign {command} [CONFIG]", exit_on_error=False, allow_abbrev=False
    )
    result.add_argument(
        "--config", action="config", help="YAML file; the options below override it"
    )
    result.add_class_arguments(kind, sub_configs=True)
    return result


def _word_parser(kind: type, command: str, words: Mapping[str, str | None]) -> ArgumentParser:
    """Positional words first; a list takes several words, a bool may stand without a value."""
    summary = (kind.__doc__ or "").split("\n\n")[0]
    result = ArgumentParser(
        prog=f"jalign {command}", description=summary, exit_on_error=False, allow_abbrev=False
    )
    declared = ArgumentParser()
    declared.add_class_arguments(kind)
    meaning = {action.dest: action.help for action in declared._actions}
    lists = {f.name: str(f.type) for f in fields(kind) if "list[" in str(f.type)}  # type: ignore[arg-type]
    for name, nargs in words.items():
        result.add_argument(name, nargs=nargs, help=meaning.get(name))
    for name, text in lists.items():
        if name not in words:
            element = float if "float" in text else str
            required = "None" not in text
            result.add_argument(
                f"--{name}", nargs="+", type=element, required=required, help=meaning.get(name)
            )
    result.add_class_arguments(kind, skip={*words, *lists})
    for action in result._actions:
        if getattr(action, "_typehint", None) in (bool, bool | None):
            action.nargs, action.const = "?", True
    return result


def option_names(args: Sequence[str]) -> list[str]:
    """Names of the options on a command line, without their dashes and values."""
    return [arg[2:].partition("=")[0] for arg in args if arg.startswith("--")]


def parsed(
    options: ArgumentParser, args: Sequence[str], build: Callable[[Namespace], T] = lambda x: x
) -> T:
    """Parse and build. Where there is a --config, a first word that is not an option is one."""
    names = {action.dest for action in options._actions}
    takes_config = options.prog.endswith("[CONFIG]")  # bench has a --config of another kind
    args = [_with_underscores(arg, names) for arg in args]
    # before parsing: jsonargparse would only say that the option is unknown
    for name in option_names(args):
        if renamed := refusal(name):
            raise ConfigError(renamed)
    if takes_config and args and not args[0].startswith("-"):
        args = ["--config", *args]
    if takes_config and config_help.wanted(args):
        _print_help(options, args)
    if takes_config:
        args = _with_algorithm(args) if "algorithm" in names else _with_config_files(args)
    try:
        return build(options.instantiate(options.parse_args(args)))
    # its message is for the user already; `_explain` would only look for a key in it
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        # --print_config has printed, and exits with 0
        if isinstance(error, SystemExit) and not error.code:
            raise
        if re.search(r"required: algorithm\b", str(error)):
            raise ConfigError(_complete(options.prog.split()[1])) from error
        raise ConfigError(_explain(str(error), _keys(options))) from error


def _with_underscores(arg: str, names: Collection[str]) -> str:
    """`--max-new-tokens` as `--max_new_tokens`, where there is such an option."""
    name, equals, value = arg.partition("=")
    underscored = name[2:].replace("-", "_")
    return f"--{underscored}{equals}{value}" if arg[:2] == "--" and underscored in names else arg


def _with_config_files(args: list[str]) -> list[str]:
    """The arguments with each config's name replaced by its file, once it is known to be sound."""
    args = [
        packaged.find(arg) if before == "--config" else arg
        for before, arg in zip(["", *args], args, strict=False)
    ]
    for before, arg in pairwise(args):
        if before == "--config":
            load_yaml(arg)
    return args


def _with_algorithm(args: list[str]) -> list[str]:
    """The arguments with the algorithm's section in one piece."""
    args, section = algorithm_option.resolved(args, packaged.find)
    # is_main() starts JAX's backends, which jax.distributed.initialize must come before
    alone = not jax.distributed.is_initialized()
    for line in section.lines if alone or hosts.is_main() else ():
        print(f"jalign: {line}", file=sys.stderr)
    return args


def _print_help(options: ArgumentParser, args: list[str]) -> NoReturn:
    words = [arg for arg in args if arg not in ("-h", "--help")]
    section = algorithm_option.resolved(words, packaged.find)[1]
    try:
        print(config_help.text(options, args, section.value.get("name")))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error
    raise SystemExit(0)


def _complete(command: str) -> str:
    more = " --target v5e-8" if command == "plan" else ""
    return f"""no algorithm is named. These are complete commands:
  jalign {command} --algorithm dpo{more}    the model and data in the package
  jalign {command} quickstart{more}         one of the configs that jalign configs lists
  jalign {command} FILE.yaml{more}          your own: jalign init FILE.yaml writes one"""


def _instance(kind: type[T], values: Namespace) -> T:
    return kind(**{field.name: getattr(values, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def _keys(options: ArgumentParser) -> list[str]:
    return [a.dest for a in options._actions if a.dest not in ("help", "config")]


def _explain(message: str, keys: Iterable[str]) -> str:
    """jsonargparse's message; one about an unknown key gets the nearest key instead."""
    keys = list(keys)
    # A section that gets one word: jsonargparse takes the word for a file.
    if section := re.search(
        r"""Parser key "([\w.]+)":\s+Unable to load config '([^']*)'""", message
    ):
        name, word = section.groups()
        names = [k.removeprefix(f"{name}.") for k in keys if k.startswith(f"{name}.")]
        near = did_you_mean(word, names)
        return f"{name} is a section of options, got {word!r}: set --{name}.NAME{near}"
    if choice := re.search(
        r"""Parser key "([\w.]+)":\s+Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)""",
        message,
    ):
        name, words, value = choice.groups()
        allowed = re.findall(r"'([^']*)'", words)
        return f"{name} must be {', '.join(allowed)}, got {value!r}{nearest(value, allowed)}"
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
