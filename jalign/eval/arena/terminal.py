"""The summary of an arena as tables for a terminal."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Lengths of the models' answers, the win rate of every pair, and Elo for three or more."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    _show_models(summary["models"], summary["elo"], console)
    title = f"win rate of A, judge: {summary['judge']}; in brackets 95 % intervals over prompts"
    table = Table("A", "B", box=SIMPLE, title=Text(title))
    for head in ("win rate", "equal length", "W/T/L", "p", "consistent", "length", "n"):
        table.add_column(head, justify="right")
    for pair in summary["pairs"]:
        table.add_row(Text(pair["a"]), Text(pair["b"]), *_cells(pair))
    console.print(table)
    for pair in summary["pairs"]:
        if missing := pair["prompts"] - pair["judged"]:
            say(
                f"{pair['a']} against {pair['b']}: no verdict on {missing} of {pair['prompts']} "
                "prompts, which are left out"
            )
        if _picks_slots(pair):
            say(
                f"warning: {pair['a']} against {pair['b']}: in most pairs the judge picks the same "
                "slot in both orders, so the win rate says little; try another judge or wording"
            )


def _picks_slots(pair: Mapping[str, Any]) -> bool:
    same = pair["position_consistency"]
    return bool(same) and pair["judged"] >= 4 and same["value"] < 0.25


def _show_models(
    models: Mapping[str, Any], elo: Mapping[str, Any] | None, console: Console
) -> None:
    table = Table("model", box=SIMPLE, title=Text("answers"))
    for head in ("characters", "tokens", "cut", *(["Elo"] if elo else [])):
        table.add_column(head, justify="right")
    for name, x in models.items():
        cells = [f"{x['characters']:.0f}", f"{x['tokens']:.1f}", f"{x['cut']:.0%}"]
        rating = [_rating(elo[name])] if elo else []
        table.add_row(Text(name), *cells, *rating)
    console.print(table)


def _rating(x: Mapping[str, float | None]) -> str:
    if any(value is None for value in x.values()):
        return "unbounded"
    return f"{x['elo']:.0f} [{x['low']:.0f}, {x['high']:.0f}]"


def _cells(pair: Mapping[str, Any]) -> list[str]:
    if not pair["judged"]:
        return [""] * 6 + ["0"]
    p, same, ratio = pair["p_value"], pair["position_consistency"], pair["length_ratio"]
    return [
        _interval(pair["win_rate"]),
        _interval(pair["length_controlled"]),
        "/".join(str(pair[name]) for name in ("wins", "ties", "losses")),
        f"{p:.2g}",
        "" if same is None else f"{same['value']:.0%}",
        "" if ratio is None else f"{ratio:.2f}",
        str(pair["judged"]),
    ]


def _interval(x: Mapping[str, float] | None) -> str:
    """0.83 [0.74, 0.91], as shares."""
    return "" if x is None else f"{x['value']:.2f} [{x['low']:.2f}, {x['high']:.2f}]"
