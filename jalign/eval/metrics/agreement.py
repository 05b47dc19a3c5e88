"""Agreement of a judge with human labels.

Cohen 1960; standard error of kappa: Fleiss, Cohen and Everitt 1969, Psychological Bulletin 72(5).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import vectors
from jalign.eval.metrics.estimate import Estimate, normal_interval
from jalign.eval.metrics.proportions import wilson


class Agreement(NamedTuple):
    """Labels of a judge against those of people.

    Attributes:
      rate: share of equal labels (Wilson's interval).
      kappa: Cohen's, 1 is agreement and 0 what chance gives; NaN if both have one label only.
      chance: agreement expected of independent labels.
    """

    rate: Estimate
    kappa: Estimate
    chance: float


def agreement(judge: ArrayLike, human: ArrayLike, *, confidence: float = 0.95) -> Agreement:
    """kappa = (rate - chance) / (1 - chance), chance = sum_k P(judge = k) P(human = k).

    Args:
      judge, human: [n] labels; any numbers, e.g. 1 for A, 1/2 for a tie, 0 for B.
      confidence: of the intervals.

    Raises:
      ValueError: empty or other shapes, or NaN.

    >>> result = agreement([1, 1, 0, 0], [1, 0, 0, 0])
    >>> result.rate.value, round(result.kappa.value, 6)
    (0.75, 0.5)
    """
    x, y = vectors(judge=judge, human=human)
    labels, codes = np.unique(np.concatenate([x, y]), return_inverse=True)
    table = np.zeros((len(labels), len(labels)))
    np.add.at(table, (codes[: len(x)], codes[len(x) :]), 1 / len(x))
    rows, columns = table.sum(1), table.sum(0)
    observed, chance = float(np.trace(table)), float(rows @ columns)
    rate = wilson(int((x == y).sum()), len(x), confidence=confidence)
    # one label everywhere: there is nothing to agree about
    if chance == 1:
        return Agreement(rate, Estimate(math.nan, math.nan, math.nan), chance)
    kappa = (observed - chance) / (1 - chance)
    both = rows[None, :] + columns[:, None]  # of cell (i, j): P(human = i) + P(judge = j)
    diagonal = np.diag(table) @ (1 - np.diag(both) * (1 - kappa)) ** 2
    off = (1 - kappa) ** 2 * ((table * both**2).sum() - np.diag(table) @ np.diag(both) ** 2)
    variance = (diagonal + off - (kappa - chance * (1 - kappa)) ** 2) / (1 - chance) ** 2 / len(x)
    error = math.sqrt(max(float(variance), 0.0))
    return Agreement(rate, normal_interval(kappa, error, confidence), chance)
