"""`jalign data --suspects RUN`: which labels look wrong, by the margins of a trained run."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign.config.read import parsed
from jalign.data.write import check_name, write
from jalign.eval.suspects import Suspects, suspects
from jalign.run.folder import STEP_HELP

_DESCRIPTION = """Rank the labels of a run's training data by the margins of its model: print how
many look wrong and the most doubtful ones, and write all of them to a file."""


def print_suspects(args: Sequence[str], console: Console) -> None:
    """Print the estimates and the first suspects; write all."""
    parser = ArgumentParser(prog="jalign data", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("--suspects", required=True, metavar="RUN", help="a run on pairs or thumbs")
    parser.add_argument("--rows", type=str | None, default=None, help="other data than the run's")
    parser.add_argument("--step", type=str | None, default=None, help=STEP_HELP)
    parser.add_argument("--top", type=int, default=10, help="how many to print")
    parser.add_argument("--out", default="suspects.jsonl", help="FILE.jsonl or .jsonl.gz")
    options = parsed(parser, args)
    check_name(options.out)
    result = suspects(options.suspects, step=options.step, data=options.rows)
    _show(result, options.top, console)
    write(options.out, result.rows)
    console.print(f"{len(result.rows):,} rows, the most doubtful first: {options.out}")


def _show(result: Suspects, top: int, console: Console) -> None:
    estimates = {
        "ordered against the label": result.against,
        "wrong, by the posterior (RE-PO)": result.wrong_share,
        "wrong, by Hölder-DPO's estimate": result.holder_share,
    }
    for name, share in estimates.items():
        console.print(f"{name}: {100 * share:.1f} %", highlight=False)
    if result.against < 0.01:
        console.print(
            "The model orders almost every label as it is given, and may know them by heart: rank "
            "other data (--rows), or train for less than an epoch."
        )
    if result.reliability:
        table = Table("annotator", "labels that are right")
        for name, eta in sorted(result.reliability.items(), key=lambda x: x[1])[:top]:
            table.add_row(Text(name), f"{100 * eta:.1f} %")
        console.print(table)
    table = Table("row", "P(wrong)", "log-odds", "response that the label prefers, or judges")
    for row in result.rows[:top]:
        text = str(row.get("chosen", row.get("completion", "")))
        cells = f"{row['row']}", f"{row['p_wrong']:.3f}", f"{row['log_odds']:+.2f}"
        table.add_row(*cells, Text(" ".join(text.split())[:120]))
    console.print(table)
