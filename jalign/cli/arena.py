"""`jalign eval A B --judge ...`: models against each other, compared by a judge or by people."""

import json
from collections.abc import Sequence

from rich.console import Console

from jalign.config.read import option_names, read_as
from jalign.eval.arena.arena import check, run_arena
from jalign.eval.arena.terminal import show
from jalign.log import Display
from jalign.options import ArenaConfig

OPTIONS = ("judge", "human", "verdicts")
"""Options of `jalign eval` that ask for an arena."""


def asks_for_arena(args: Sequence[str]) -> bool:
    """Whether the arguments of `jalign eval` have one of `OPTIONS`."""
    return any(name.partition(".")[0] in OPTIONS for name in option_names(args))


def read_arena(args: Sequence[str]) -> ArenaConfig:
    """The options, checked as far as possible without loading a model; --judge X is short for
    --judge.model X.
    """
    words = [
        "--judge.model" + arg[7:] if arg.partition("=")[0] == "--judge" else arg for arg in args
    ]
    options = read_as(ArenaConfig, words, "eval", {"models": "*"})
    check(options)
    return options


def arena(args: Sequence[str], console: Console) -> None:
    """Print the table, or the summary as JSON."""
    as_json = "--json" in args
    options = read_arena([arg for arg in args if arg != "--json"])
    display = Display(Console(stderr=True) if as_json else console)  # stdout is for the JSON alone
    result = run_arena(options, display)
    display.close()
    for file in result.files:
        display.say(f"written: {file}")
    if result.files:
        display.say(
            f"People fill in {result.files[0].name} or open {result.files[1].name} in a browser; "
            f"{result.files[2].name} says whose answers these are: keep it back. Then: jalign eval "
            f"--out {options.out} --verdicts FILE.csv"
        )
    elif as_json:
        print(json.dumps(result.summary, indent=2))
    else:
        show(result.summary, console)
