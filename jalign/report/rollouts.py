"""Recorded responses of an online run: rewards, lengths, and a table of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, quantiles
from typing import Any

from jalign.report.charts import sampler_entropy
from jalign.report.record import Row, RunRecord
from jalign.report.scale import compact
from jalign.report.svg import Chart, Line, histogram, scatter

MOST = 240
"""Responses in the table: of the first and of the last rollouts, best, worst and between."""

_POINTS = 500
_LONGEST = 2000  # characters of a text


def rollouts_of(run: RunRecord) -> dict[str, object] | None:
    """Figures, charts and rows of the recorded responses; None without any."""
    if not run.responses:
        return None
    indices = sorted({int(row["rollout"]) for row in run.responses})
    fifth = max(len(indices) // 5, 1)
    early = [row for row in run.responses if row["rollout"] <= indices[fifth - 1]]
    late = [row for row in run.responses if row["rollout"] >= indices[-fifth]]
    if len(indices) == 1:  # it would be compared with itself
        early = []
    labels = [f"rollouts {indices[0]} to {indices[fifth - 1]}"] if early else []
    labels.append(f"rollouts {indices[-fifth]} to {indices[-1]}")
    groups = [rows for rows in (early, late) if rows]
    rows = _picked(early, late)
    read = len(indices)
    note = f"{len(rows)} of {len(run.responses):,} responses of {read} rollouts"
    if read < run.rollouts:
        note += f" ({run.rollouts} were recorded, {read} are read)"
    return {
        "figures": _figures(labels, groups),
        "charts": _charts(run),
        "rows": rows,
        "note": note + ". A click on a heading sorts, one on a text opens it.",
    }


def _figures(labels: list[str], groups: list[list[Row]]) -> list[dict[str, Any]]:
    scored = [
        [(float(len(r["tokens"])), s) for r in g if (s := _score(r)) is not None] for g in groups
    ]
    if not all(scored):
        return []
    rewards = list(zip(labels, ([y for _, y in points] for points in scored), strict=True))
    figures: list[dict[str, Any]] = [
        {"title": "Rewards", "note": "share of responses", "svg": histogram(rewards)}
    ]
    if len({length for points in scored for length, _ in points}) > 1:
        points = list(zip(labels, ([*_spread(group, _POINTS)] for group in scored), strict=True))
        svg = scatter(points, "reward against length in tokens")
        note = _correlation(scored[-1])
        figures.append({"title": "Reward against length in tokens", "note": note, "svg": svg})
    return [figure | {"labels": labels} for figure in figures]


def _charts(run: RunRecord) -> list[Chart]:
    by_number: dict[int, list[float]] = {}
    for row in run.responses:
        if (score := _score(row)) is not None:
            by_number.setdefault(int(row["rollout"]), []).append(score)
    charts = []
    known = {n: x for n, x in by_number.items() if len(x) > 1}
    if len(known) > 1:
        tenths = [quantiles(x, n=10, method="inclusive") for x in known.values()]
        line = Line(
            label="mean, 10 % to 90 %",
            steps=list(known),
            values=[fmean(x) for x in known.values()],
            low=[t[0] for t in tenths],
            high=[t[-1] for t in tenths],
        )
        charts.append(Chart(title="Reward by rollout", unit="mean, and 10 % to 90 %", lines=[line]))
    entropy = sampler_entropy(run)
    if len(entropy.values) > 1 and not run.series("train", "entropy").values:
        line = Line(label="-log p of the samples", steps=entropy.steps, values=entropy.values)
        note = "by rollout: the mean of -log p over sampled tokens estimates it"
        charts.append(Chart(title="Entropy", unit="nats per token", note=note, lines=[line]))
    return charts


def _picked(early: Sequence[Row], late: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of the table, by reward at equal distances."""
    share = MOST // 2 if early else MOST
    picked = []
    for rows in (early, late):
        ordered = sorted(rows, key=lambda row: -_order(row))
        picked += _spread(ordered, share)
    return [
        {
            "rollout": int(row["rollout"]),
            "score": compact(_score(row)),
            "score_key": _key(_score(row)),
            "advantage": compact(row.get("advantage")),
            "advantage_key": _key(row.get("advantage")),
            "tokens": len(row["tokens"]),
            "ended": bool(row["finished"]),
            "prompt": str(row["prompt"])[:_LONGEST],
            "response": str(row["response"]).strip()[:_LONGEST],
        }
        for row in picked[::-1]
    ]


def _correlation(points: Sequence[tuple[float, float]]) -> str:
    lengths, rewards = [x for x, _ in points], [y for _, y in points]
    if len(set(lengths)) < 2 or len(set(rewards)) < 2:
        return "no correlation: one is constant"
    from scipy import stats  # takes seconds to import, and most reports do not need it

    rank = float(stats.spearmanr(lengths, rewards).statistic)  # pyright: ignore
    return f"Spearman {rank:+.2f} in the last ones"


def _spread(rows: Sequence[Any], most: int) -> Sequence[Any]:
    """At most so many, at equal distances, the first and the last among them."""
    if len(rows) <= most:
        return rows
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _score(row: Row) -> float | None:
    score = row.get("score")
    return None if score is None or math.isnan(score) else float(score)


def _order(row: Row) -> float:
    score = _score(row)
    return -math.inf if score is None else score


def _key(x: float | None) -> str:
    return "" if x is None or math.isnan(x) else f"{x:.6g}"
