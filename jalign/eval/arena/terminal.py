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
    title = f"win rate of A, judge: {summary['judge']} (95 % intervals over prompts)"
    # values above their intervals, A above B: eight columns fit into 80 characters
    table = Table("A\nB", box=SIMPLE, pad_edge=False, title=Text(title))
    rows = [_cells(pair) for pair in summary["pairs"]]
    # a judge that is not asked in both orders has no consistency
    heads = [head for head in HEADS if any(row[head] for row in rows)]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for pair, row in zip(summary["pairs"], rows, strict=True):
        table.add_row(Text(f"{pair['a']}\n{pair['b']}"), *(row[head] for head in heads))
    console.print(table)
    for pair in summary["pairs"]:
        names = f"{pair['a']} against {pair['b']}"
        if missing := pair["prompts"] - pair["judged"]:
            say(f"{names}: no verdict on {missing} of {pair['prompts']} prompts, left out")
        if _picks_slots(pair):
            say(
                f"warning: {names}: in most pairs the judge picks the same slot in both orders, so "
                "the win rate says little; try another judge or wording"
            )
    for name, x in summary.get("agreement", {}).items():
        kappa = "" if x["kappa"] is None else f", kappa {_interval(x['kappa'])}"
        say(f"{name} agrees with people on {_interval(x['rate'])} of {x['verdicts']}{kappa}")


def _picks_slots(pair: Mapping[str, Any]) -> bool:
    same = pair["position_consistency"]
    return bool(same) and pair["judged"] >= 4 and same["value"] < 0.25


def _show_models(
    models: Mapping[str, Any], elo: Mapping[str, Any] | None, console: Console
) -> None:
    table = Table("model", box=SIMPLE, pad_edge=False, title=Text("answers"))
    for head in ("characters", "tokens", "cut", *(["Elo"] if elo else [])):
        table.add_column(head, justify="right", no_wrap=True)
    for name, x in models.items():
        cells = [f"{x['characters']:.0f}", f"{x['tokens']:.1f}", f"{x['cut']:.0%}"]
        rating = elo["ratings"][name] if elo else None
        shown = (
            [f"{rating['elo']:.0f} [{rating['low']:.0f}, {rating['high']:.0f}]"] if rating else []
        )
        table.add_row(Text(name), *cells, *shown)
    console.print(table)


HEADS = ("win rate", "equal length", "W/T/L", "p", "same", "length", "n")
"""Columns: win rate, that at equal length, wins/ties/losses, sign test, share of prompts with the
same winner in both orders, length of A's answers over that of B's, prompts."""


def _cells(pair: Mapping[str, Any]) -> dict[str, str]:
    if not pair["judged"]:
        return dict.fromkeys(HEADS, "") | {"n": "0"}
    same, ratio = pair["position_consistency"], pair["length_ratio"]
    cells = (
        _interval(pair["win_rate"], "\n"),
        _interval(pair["length_controlled"], "\n"),
        "/".join(str(pair[name]) for name in ("wins", "ties", "losses")),
        f"{pair['p_value']:.2g}",
        "" if same is None else f"{same['value']:.0%}",
        "" if ratio is None else f"{ratio:.2f}",
        str(pair["judged"]),
    )
    return dict(zip(HEADS, cells, strict=True))


def _interval(x: Mapping[str, float] | None, between: str = " ") -> str:
    """.83 [.74, .91], as shares."""
    if x is None:
        return ""
    value, low, high = (f"{x[name]:.2f}".replace("0.", ".", 1) for name in ("value", "low", "high"))
    return f"{value}{between}[{low}, {high}]"
