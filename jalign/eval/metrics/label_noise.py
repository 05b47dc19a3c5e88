"""How many labels are wrong, and which: from the margins of a trained model alone.

Posterior and reliability by EM: Cao et al. 2026 (RE-PO), arXiv 2509.24159, Eq. 4 and 6. Share of
wrong labels: Fujisawa, Adachi, Osborne 2025 (Hölder-DPO), arXiv 2505.17859.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import vectors


class Reliability(NamedTuple):
    """What EM says of labels.

    Attributes:
      posterior: [n] probability that a label is right.
      eta: [annotators] how often the labels of each are right; NaN for one without labels.
    """

    posterior: np.ndarray
    eta: np.ndarray

    @property
    def wrong_share(self) -> float:
        """The share of labels that are wrong, in expectation."""
        return float(1 - self.posterior.mean())


def label_reliability(
    margins: ArrayLike,
    annotators: ArrayLike | None = None,
    *,
    start: float = 0.9,
    rounds: int = 1000,
) -> Reliability:
    """EM of P(label right) = sigmoid(margin + logit(eta)), eta_k the mean of it over annotator k.

    The margins stay fixed, so the likelihood of each eta is concave and the result is its maximum.
    A model that is not calibrated (margins near 0 early in training, or labels that it has learned
    by heart) gives an estimate that is off in the same direction.

    Args:
      margins: [n] log-odds that the model gives to a label being right, nats.
      annotators: [n] who gave each label, integers from 0; None: all the same.
      start: eta at first, in (0, 1).
      rounds: most EM steps; it ends earlier where no eta moves by 1e-6.

    Raises:
      ValueError: no margins, lengths that differ, or start out of range.
    """
    (x,) = vectors(margins=margins)
    who = np.zeros(len(x), int) if annotators is None else np.asarray(annotators, int)
    if len(who) != len(x) or (who < 0).any():
        raise ValueError(f"annotators must be {len(x)} integers from 0, got {who!r:.80}")
    if not 0 < start < 1:
        raise ValueError(f"start must be in (0, 1), got {start}")
    counts = np.bincount(who)
    eta = np.where(counts > 0, start, np.nan)
    posterior = np.zeros_like(x)
    for _ in range(rounds):
        # at 0 or 1 the posterior would never change again
        sure = np.clip(eta, 1e-9, 1 - 1e-9)
        posterior = _sigmoid(x + (np.log(sure) - np.log1p(-sure))[who])
        new = np.bincount(who, posterior) / np.where(counts > 0, counts, np.nan)
        moved = np.nanmax(np.abs(new - eta))
        eta = new
        if moved < 1e-6:
            break
    return Reliability(posterior, eta)


def holder_share(margins: ArrayLike, *, gamma: float = 2.0) -> float:
    """1 - mean(P^gamma) / sum(P^(1 + gamma)), P = p / sum(p), p = sigmoid(margin).

    The share of wrong labels by Hölder-DPO: 1 - x, where x P fits the labels best in the score
    gamma x^(1 + gamma) sum P^(1 + gamma) - (1 + gamma) x^gamma mean P^gamma. 0 if all p are equal;
    exactly e if a share e has p = 0 and the others are equal. It is meant for the margins of a
    policy trained with `holder_dpo`, which gives up wrong labels (p near 0).

    Args:
      margins: [n] log-odds that the model gives to a label being right, nats.
      gamma: that of the loss, > 0.

    Raises:
      ValueError: no margins, or gamma <= 0.
    >>> round(holder_share([-50.0, 3.0, 3.0, 3.0]), 6)
    0.25
    """
    if gamma <= 0:
        raise ValueError(f"gamma must be > 0, got {gamma}")
    (x,) = vectors(margins=margins)
    # the scale of P cancels but for the number of labels; by the largest p nothing underflows
    p = _sigmoid(x) / _sigmoid(x.max())
    share = np.mean(p**gamma) * p.sum() / np.sum(p ** (1 + gamma))
    return float(1 - share)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -x))
