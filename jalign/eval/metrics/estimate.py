"""A number with its confidence interval."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from jalign.eval.metrics._arrays import fraction


class Estimate(NamedTuple):
    """A value and the ends of its confidence interval, all in the unit of the value."""

    value: float
    low: float
    high: float


def normal_interval(value: float, standard_error: float, confidence: float) -> Estimate:
    """value -+ z * standard_error, z the normal quantile at (1 + confidence) / 2."""
    z = float(special.ndtri((1 + fraction("confidence", confidence)) / 2))
    return Estimate(value, value - z * standard_error, value + z * standard_error)


def percentiles(samples: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the central interval that holds the share `confidence` of samples, [S, ..]."""
    tail = (1 - fraction("confidence", confidence)) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    return low, high
