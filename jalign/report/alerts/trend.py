"""What the checks share: an alert, and how a metric has moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from jalign.report.record import RunRecord, Series


class Alert(NamedTuple):
    """A sentence about a run; `severe` if its result is in doubt."""

    text: str
    severe: bool = False


def best_kind(run: RunRecord, name: str, least: int) -> str | None:
    """The held-out rows if there are enough of them, else those of training."""
    kinds = (kind for kind in ("eval", "train") if len(run.series(kind, name).values) >= least)
    return next(kinds, None)


def halves(values: Sequence[float]) -> tuple[float, float]:
    """Means of the third and of the last quarter."""
    quarter = max(len(values) // 4, 1)
    return fmean(values[-2 * quarter : -quarter]), fmean(values[-quarter:])


def ends(series: Series) -> tuple[float, float]:
    """Means of the first and of the last tenth."""
    # one line of a noisy metric says little
    tenth = max(len(series.values) // 10, 1)
    return fmean(series.values[:tenth]), fmean(series.values[-tenth:])


def noise(values: Sequence[float]) -> float:
    """A standard error of the difference of two quarters' means.

    The variance of a value is that of its distance to the mean of its neighbors, over 1.5: a steady
    trend is no noise.
    """
    triples = zip(values, values[1:], values[2:], strict=False)
    bends = [b - (a + c) / 2 for a, b, c in triples]
    variance = fmean(x * x for x in bends) / 1.5 if bends else 0.0
    return math.sqrt(2 * variance / max(len(values) // 4, 1))
