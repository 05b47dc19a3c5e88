"""`jalign rollouts RUN`: what the policy answered, and what it got for it."""

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


def rollouts(args: Sequence[str], console: Console) -> None:
    """Show the recorded responses of a run (`rollout.record: true`), the best rewards first."""
    parser = ArgumentParser(prog="jalign rollouts", description=rollouts.__doc__)
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--last", type=int, default=1, help="so many of the newest rollouts")
    parser.add_argument("--limit", type=int, default=20, help="responses to show; 0: all")
    parser.add_argument("--worst", type=bool, default=False, help="the worst rewards first")
    options = parser.parse_args(list(args))
    rows = record.read(store.at(options.run) / record.FOLDER, options.last)
    # a reward that is missing is neither good nor bad: last
    sign = 1 if options.worst else -1
    rows.sort(key=lambda row: (math.isnan(_score(row)), sign * _score(row)))
    table = Table("rollout", "reward", "advantage", "tokens", "ended", "prompt", "response")
    for row in rows[: options.limit or None]:
        table.add_row(
            str(row["rollout"]),
            _number(row.get("score")),
            _number(row.get("advantage")),
            str(len(row["tokens"])),
            "yes" if row["finished"] else "no",
            Text(row["prompt"]),
            Text(row["response"]),
        )
    console.print(table)
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


def _score(row: dict[str, Any]) -> float:
    return math.nan if row.get("score") is None else float(row["score"])


def _number(x: float | None) -> str:
    return "" if x is None or math.isnan(x) else f"{x:.3g}"
