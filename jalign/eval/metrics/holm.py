"""Correction for several comparisons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import fraction, vector


class Holm(NamedTuple):
    """p-values after Holm's correction.

    Attributes:
      adjusted: [m] in [0, 1].
      reject: [m] bool, whether the hypothesis is rejected at `alpha`.
    """

    adjusted: np.ndarray
    reject: np.ndarray


def holm(p_values: ArrayLike, *, alpha: float = 0.05) -> Holm:
    """Holm's step-down: adjusted p_(i) = max over j <= i of (m - j + 1) p_(j), at most 1, where
    p_(1) <= .. <= p_(m). The probability of any false rejection is at most `alpha`, however the
    tests depend on each other. Holm 1979, Scandinavian Journal of Statistics 6(2).

    Args:
      p_values: [m] in [0, 1], m >= 1.
      alpha: in (0, 1).

    >>> [round(float(p), 3) for p in holm([0.01, 0.04, 0.03]).adjusted]
    [0.03, 0.06, 0.06]
    """
    p = vector("p_values", p_values, 0, 1)
    fraction("alpha", alpha)
    order, m = np.argsort(p, kind="stable"), len(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(m, 0, -1))
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(stepped, 1.0)
    return Holm(adjusted, adjusted <= alpha)
