"""`jalign runs [DIR]`: the runs below a folder."""

from collections.abc import Sequence
from datetime import datetime

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign.report.listing import runs_in
from jalign.report.scale import compact

_STYLES = {"finished": "green", "running": "cyan", "stopped": "yellow"}


def runs(args: Sequence[str], console: Console) -> None:
    """List runs by their records: what was trained, whether it runs, has finished, was stopped or
    diverged, and its last metric.
    """
    parser = ArgumentParser(prog="jalign runs", description=runs.__doc__)
    parser.add_argument("folder", nargs="?", default="runs", help="folder with runs; runs")
    folder = parser.parse_args(list(args)).folder
    entries = runs_in(folder)
    if not entries:
        console.print(f"no run of jalign train in {folder}", markup=False, highlight=False)
        return
    table = Table("run", "what", "state", "step", "last metric", "when")
    for entry in entries:
        model = entry.model.rstrip("/").split("/")[-1]
        metric = f"{entry.metric[0]} {compact(entry.metric[1])}" if entry.metric else ""
        when = datetime.fromtimestamp(entry.time).strftime("%Y-%m-%d %H:%M") if entry.time else ""
        table.add_row(
            Text(entry.folder, overflow="fold"),
            Text(f"{entry.algorithm} on {model}" if model else entry.algorithm),
            Text(entry.state.word, _STYLES.get(entry.state.word, "red")),
            f"{entry.step}/{entry.steps}" if entry.steps else str(entry.step),
            Text(metric),
            when,
        )
    console.print(table)
