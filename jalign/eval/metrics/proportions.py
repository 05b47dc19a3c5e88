"""Shares of trials: Wilson's interval and the sign test."""

from __future__ import annotations

import math

from scipy import special, stats

from jalign.eval.metrics._arrays import fraction
from jalign.eval.metrics.estimate import Estimate


def wilson(successes: float, trials: int, *, confidence: float = 0.95) -> Estimate:
    """The share p = successes / trials with Wilson's score interval.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n): within [0, 1], and not
    empty at p = 0 or 1. Wilson 1927, JASA 22(158).

    Args:
      successes: in [0, trials]; a tie may count half.
      trials: n >= 1.
      confidence: in (0, 1).

    Raises:
      ValueError: a number out of its range.

    >>> [round(x, 4) for x in wilson(7, 10)]
    [0.7, 0.3968, 0.8922]
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"successes must be in [0, trials], trials >= 1: {successes} of {trials}")
    z = float(special.ndtri((1 + fraction("confidence", confidence)) / 2))
    p, scale = successes / trials, 1 + z * z / trials
    center = (p + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    return Estimate(p, max(center - half, 0.0), min(center + half, 1.0))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of as many wins among wins + losses if both were equally likely; ties are left
    out. The exact binomial test (McNemar's, for pairs of right and wrong answers); 1 without games.

    >>> sign_test(8, 2)
    0.109375
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"wins and losses must be >= 0, got {wins} and {losses}")
    if wins + losses == 0:
        return 1.0
    return float(stats.binomtest(int(wins), int(wins + losses)).pvalue)
