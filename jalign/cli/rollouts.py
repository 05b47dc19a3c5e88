"""`jalign rollouts RUN`: sampled responses with their rewards."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign import store
from jalign.rollout import record

_FACTS = ("reward", "advantage", "tokens", "ended")
_WIDE = 120  # columns above which prompt and response fit beside the facts


def rollouts(args: Sequence[str], console: Console) -> None:
    """Show the recorded responses of a run (`rollout.record: true`), the best rewards first."""
    parser = ArgumentParser(prog="jalign rollouts", description=rollouts.__doc__)
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--last", type=int, default=1, help="number of newest rollouts")
    parser.add_argument("--limit", type=int, default=20, help="responses to show; 0: all")
    parser.add_argument("--worst", type=bool, default=False, help="the worst rewards first")
    options = parser.parse_args(list(args))
    rows = record.read(store.as_path(options.run) / record.FOLDER, options.last)
    # a missing reward is neither good nor bad: last in both orders
    sign = 1 if options.worst else -1
    rows.sort(key=lambda row: (math.isnan(_score(row)), sign * _score(row)))
    (_side_by_side if console.width >= _WIDE else _stacked)(rows[: options.limit or None], console)
    scores = np.array([_score(row) for row in rows])
    known = scores[~np.isnan(scores)]
    lengths = np.array([len(row["tokens"]) for row in rows])
    console.print(
        f"{len(rows)} responses, "
        + (f"mean reward {known.mean():.4g}, " if len(known) else "")
        + (f"{len(rows) - len(known)} without a reward, " if len(known) < len(rows) else "")
        + f"mean length {lengths.mean():.4g} tokens",
        highlight=False,
    )


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


def _score(row: dict[str, Any]) -> float:
    return math.nan if row.get("score") is None else float(row["score"])


def _number(x: float | None) -> str:
    return "" if x is None or math.isnan(x) else f"{x:.3g}"
