"""`jalign compare RUN RUN ...`: what differs between runs, and how they ended."""

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign import report
from jalign.report import compare as runs_compare
from jalign.report.comparison_page import cell


def compare(args: Sequence[str], console: Console) -> None:
    """Compare runs: settings that differ, and metrics after training with intervals. Runs that
    differ by the seed only are one column. --out writes the page with the curves, too.
    """
    parser = ArgumentParser(prog="jalign compare", description=compare.__doc__)
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument("--out", type=str | None, help="file of an HTML page")
    options = parser.parse_args(list(args))
    if len(options.runs) < 2:
        raise ValueError("jalign compare needs at least two runs; jalign report shows one")
    runs = report.load_all(options.runs)
    groups = runs_compare.groups_of(runs)
    labels = [Text(group.label) for group in groups]
    differences = runs_compare.differing([group.runs[0] for group in groups])
    if differences:
        table = _table("setting", labels)
        for name, values in differences.items():
            table.add_row(Text(name), *(Text(value) for value in values))
        console.print(table)
    table = _table("after training", labels)
    for name, estimates in runs_compare.finals(groups).items():
        table.add_row(Text(name), *(cell(estimate)["text"] for estimate in estimates))
    console.print(table)
    if options.out:
        Path(options.out).write_text(report.html(runs), encoding="utf-8")
        console.print(options.out, markup=False, highlight=False, soft_wrap=True)


def _table(first: str, labels: Sequence[Text]) -> Table:
    table = Table(first)
    for label in labels:
        table.add_column(label, justify="right")
    return table
