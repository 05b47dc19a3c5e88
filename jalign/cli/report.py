"""`jalign report RUN ...`: a run, or several, as one HTML page."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign import report as reports


def report(args: Sequence[str], console: Console) -> None:
    """Write a page with curves, samples, warnings, time and memory of a run, made from its folder
    alone; several runs are compared.
    """
    parser = ArgumentParser(prog="jalign report", description=report.__doc__)
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument(
        "--out",
        type=str | None,
        help="file of the page; RUN/report.html, or comparison.html of several runs",
    )
    options = parser.parse_args(list(args))
    path = reports.write(options.runs, options.out)
    console.print(path, markup=False, highlight=False, soft_wrap=True)
