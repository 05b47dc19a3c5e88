"""Calibration of probabilities, such as sigmoid(reward margin).

Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2 (ECE); Brier 1950.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import in_range, vectors


class Calibration(NamedTuple):
    """Probabilities against outcomes.

    Attributes:
      ece: sum over bins of n_bin / n |mean outcome - mean probability|, in [0, 1].
      brier: mean (probability - outcome)^2, in [0, 1].
      nll: mean cross-entropy, nats; infinite where a probability of 0 or 1 was wrong.
      edges: [bins + 1]; bin i is [edge_i, edge_i+1), the last one includes its end.
      counts: [bins].
      probability, outcome: [bins] means; NaN in an empty bin.
    """

    ece: float
    brier: float
    nll: float
    edges: np.ndarray
    counts: np.ndarray
    probability: np.ndarray
    outcome: np.ndarray


def reliability(
    probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 10, low: float = 0.0
) -> Calibration:
    """ECE, Brier score, cross-entropy and the bins of a reliability diagram.

    For pairs: probabilities sigmoid(r_a - r_b), outcomes 1 where people prefer a. If the preferred
    side is always a, the probabilities must be folded to max(p, 1 - p), as
    `jalign.eval.reward.calibration` does: else a model that always says 1/2 is 1/2 off.

    Args:
      probabilities: [n] in [low, 1].
      outcomes: [n] in [0, 1].
      bins: of equal width over [low, 1], >= 1.
      low: least possible probability, in [0, 1).

    Raises:
      ValueError: empty or other shapes, NaN, or numbers out of range.

    >>> result = reliability([0.9, 0.8, 0.3], [1, 0, 0], bins=2)
    >>> round(result.ece, 6), result.counts.tolist()
    (0.333333, [1, 2])
    """
    if bins < 1 or not 0 <= low < 1:
        raise ValueError(f"bins must be >= 1 and low in [0, 1), got {bins} and {low}")
    p, y = vectors(probabilities=probabilities, outcomes=outcomes, low=0, high=1)
    in_range("probabilities", p, low)
    edges = np.linspace(low, 1.0, bins + 1)
    index = np.minimum(np.searchsorted(edges, p, side="right") - 1, bins - 1)
    counts = np.bincount(index, minlength=bins)
    sums = (np.bincount(index, weights=x, minlength=bins) for x in (p, y))
    means = [np.divide(s, counts, out=np.full(bins, np.nan), where=counts > 0) for s in sums]
    gaps = np.nan_to_num(np.abs(means[0] - means[1]))
    with np.errstate(divide="ignore", invalid="ignore"):
        # 0 log 0 is 0
        terms = [np.where(t > 0, -t * np.log(q), 0.0) for t, q in ((y, p), (1 - y, 1 - p))]
    return Calibration(
        ece=float(counts @ gaps / len(p)),
        brier=float(((p - y) ** 2).mean()),
        nll=float((terms[0] + terms[1]).mean()),
        edges=edges,
        counts=counts,
        probability=means[0],
        outcome=means[1],
    )
