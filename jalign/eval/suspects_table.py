"""What `jalign data --suspects` prints."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign.eval.suspects import Suspects


def show(result: Suspects, top: int, console: Console) -> None:
    """The estimates of the noise, the least reliable annotators, and the most doubtful labels."""
    estimates = {
        "ordered against the label": result.against,
        "wrong, by the posterior (RE-PO)": result.wrong_share,
        "wrong, by Hölder-DPO's estimate": result.holder_share,
    }
    for name, share in estimates.items():
        console.print(f"{name}: {100 * share:.1f} %", highlight=False)
    # a share of 0 would read as clean data
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
    table = Table("row", "P(wrong)", "log-odds", "response that the data prefer, or judge")
    for row in result.rows[:top]:
        # a label that was made from a pair judges one of its responses
        side = "chosen" if row.get("label", True) else "rejected"
        text = str(row.get(side, row.get("completion", "")))
        cells = f"{row['row']}", f"{row['p_wrong']:.3f}", f"{row['log_odds']:+.2f}"
        table.add_row(*cells, Text(" ".join(text.split())[:120]))
    console.print(table)
