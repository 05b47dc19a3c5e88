"""Rows of the catalogue as text for a terminal."""

import inspect
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from jalign import about
from jalign.core import Algorithm
from jalign.taxonomy import COLUMNS, taxonomy

LEGEND = """data: what is known about responses (none: demonstrations; score: a reward)
reward: explicit (a reward model or head) or implicit in the policy
level: whether the loss reads whole responses or tokens
ref: a frozen copy of the policy (yes), a moving one, a teacher, or none (no)
online: responses are sampled from the policy itself; other data are fixed
SFT: the loss has a likelihood term; length: it reads lengths
negative: only dispreferred responses drive it
Nash: it seeks the equilibrium of a game
jalign algorithms NAME shows its hyper-parameters, WORD the lines with the word"""

_WIDTHS = (23, 6, 8, 8, 7, 10)  # of the first columns; a line fits 80


def header() -> str:
    """The head of the table."""
    return _columns(("algorithm", "data", "reward", "level", "ref", "paper"), "is")


def line(row: Algorithm) -> str:
    """A row of the table; columns that only say yes are listed at the end."""
    cells = dict(zip(COLUMNS, taxonomy(row), strict=True))
    marks = [name for name in ("SFT", "length", "negative", "Nash") if cells[name] == "yes"]
    marks = ["online", *marks] if cells["policy"] == "on" else marks
    names = ("algorithm", "feedback", "reward", "level", "reference")
    return _columns([*(cells[n] for n in names), row.paper or "-"], " ".join(marks))


def _columns(cells: Sequence[str], last: str) -> str:
    padded = [f"{cell:<{n}}" for cell, n in zip(cells, _WIDTHS, strict=True)]
    return " ".join([*padded, last]).rstrip()


def show_row(row: Algorithm, console: Console) -> None:
    """Print a row's description, hyper-parameters, loss and, if it is online, its advantages."""
    say = partial(console.print, markup=False, highlight=False)
    paper = f", arXiv {row.paper}" if row.paper else ""
    console.print(Text.assemble((row.name, "bold"), f"  ({row.format.name} data{paper})"))
    if row.about:
        say(f"\n{row.about}")
    say("\nhyper-parameters (--algorithm.NAME VALUE), each with its default:")
    for name, (default, meaning) in about.hyperparameters(row).items():
        say(f"  {name} {default!r}")
        if meaning:
            say(Padding(Text(meaning), (0, 0, 0, 6)))
    for term, mean in about.reductions(row).items():
        say(f"mean of {term}: {mean}")
    module = row.loss.__module__
    where = "jalign.losses" if module.startswith("jalign.losses") else module
    say(f"\nThe loss, from {where} import {row.loss.__name__}:")
    say(inspect.getdoc(row.loss) or "", soft_wrap=True)
    if row.experience:
        opponent = row.experience.opponent
        writer = "the second moving reference" if opponent == "last" else opponent
        others = f"{row.experience.opponents} " if row.experience.opponents > 1 else ""
        last = "" if opponent == "policy" else f", the last {others}by {writer}"
        say(f"\n{row.experience.responses} responses per prompt{last}:")
        say(inspect.getdoc(row.experience.fn) or "", soft_wrap=True)
