"""Tables of `jalign rollouts`: responses with their rewards, by the width of the terminal."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_FACTS = ("reward", "advantage", "tokens", "ended")
_WIDE = 120  # columns above which prompt and response fit beside the facts


def show(rows: list[dict[str, Any]], console: Console) -> None:
    """Print responses with reward, advantage, length and whether they ended."""
    (_side_by_side if console.width >= _WIDE else _stacked)(rows, console)


def score(row: dict[str, Any]) -> float:
    """The reward of a response, NaN without one."""
    return math.nan if row.get("score") is None else float(row["score"])


def _side_by_side(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("rollout", *_FACTS, "prompt", "response")
    for row in rows:
        table.add_row(str(row["rollout"]), *_facts(row), Text(row["prompt"]), Text(row["response"]))
    console.print(table)


def _stacked(rows: list[dict[str, Any]], console: Console) -> None:
    """For narrow terminals, where a table would break texts into single words."""
    for row in rows:
        facts = zip(_FACTS, _facts(row), strict=True)
        text = ", ".join(f"{name} {value}" for name, value in facts if value)
        console.rule(Text(f"rollout {row['rollout']}: {text}"), align="left")
        # Text, not str: rich would read brackets in a response as markup
        console.print(Text(row["prompt"], "dim"))
        console.print(Text(row["response"]))
    if rows:
        console.rule()


def _facts(row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of `_FACTS`; empty without a value."""
    ended = "yes" if row["finished"] else "no"
    return _number(row.get("score")), _number(row.get("advantage")), str(len(row["tokens"])), ended


def _number(x: float | None) -> str:
    return "" if x is None or math.isnan(x) else f"{x:.3g}"
