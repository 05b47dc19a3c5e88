"""`jalign algorithms [NAME]`: the catalogue as a table, or one row with its hyper-parameters."""

import inspect
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from jalign.algorithms import ALGORITHMS, get
from jalign.core import Algorithm, mean_over_tokens

COLUMNS = ("algorithm", "feedback", "reward", "reference", "level", "paper")
_FEEDBACK = {"supervised": "demonstrations", "pairs": "pairs", "binary": "labels"}


def taxonomy(row: Algorithm) -> tuple[str, ...]:
    """A row's place in the survey's table (arXiv 2407.16216, Table 1), all of it derived from
    the row.
    """
    explicit = row.needs_value_head
    reward = "explicit" if explicit else "-" if row.format.name == "supervised" else "implicit"
    return (
        row.name,
        _FEEDBACK[row.format.name],
        reward,
        "yes" if row.needs_reference() else "no",
        "token" if row.reduce is mean_over_tokens else "response",
        f"arXiv {row.paper}",
    )


def markdown() -> str:
    """The whole catalogue as a Markdown table, as it stands in the README."""
    lines = [
        COLUMNS,
        tuple("---" for _ in COLUMNS),
        *(taxonomy(row) for row in ALGORITHMS.values()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def show(args: Sequence[str], console: Console) -> None:
    """Print the table; with names, each algorithm's docstring and hyper-parameters."""
    if "--markdown" in args:
        print(markdown())
        return
    if not args or args[0] in ("-h", "--help"):
        table = Table(*COLUMNS)
        for row in ALGORITHMS.values():
            table.add_row(*taxonomy(row))
        console.print(table)
        console.print(
            "jalign algorithms NAME shows one with its hyper-parameters.", highlight=False
        )
        return
    for name in args:
        row = get(name)
        console.print(f"[bold]{name}[/bold]  ({row.format.name}, arXiv {row.paper})")
        console.print(f"from jalign.losses import {row.loss.__name__}", highlight=False)
        table = Table("hyper-parameter", "default")
        for key, default in row.hyperparameters.items():
            table.add_row(key, repr(default))
        console.print(table)
        console.print(inspect.getdoc(row.loss) or "", markup=False, highlight=False)
