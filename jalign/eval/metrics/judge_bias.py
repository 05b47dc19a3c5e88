"""Biases of a judge: for a position, for length, for its own responses.

Position: Zheng et al. 2023, https://arxiv.org/abs/2306.05685, section 3.3. Length: the slope of
Dubois et al. 2024, https://arxiv.org/abs/2404.04475, with human verdicts as a control.
Self-preference: Wataoka et al. 2024, https://arxiv.org/abs/2410.21819 (equal opportunity).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics import _logistic
from jalign.eval.metrics._arrays import vectors
from jalign.eval.metrics.bootstrap import bootstrap, resample
from jalign.eval.metrics.estimate import Estimate, normal_interval, percentiles
from jalign.eval.metrics.proportions import wilson
from jalign.eval.metrics.win_rate import verdicts


class PositionBias(NamedTuple):
    """Verdicts on pairs that were shown in both orders.

    Attributes:
      first_slot: mean P(the first slot wins) - 1/2, in [-1/2, 1/2]; 0 is no bias.
      consistent: share of pairs on which both orders agree.
      first, second: shares of pairs on which the same slot won in both orders.
    """

    first_slot: Estimate
    consistent: Estimate
    first: float
    second: float


class LengthBias(NamedTuple):
    """How verdicts follow length.

    Attributes:
      slope: log-odds of preferring A per standard deviation of len_a - len_b; sandwich interval.
      human: log-odds per unit of the human label; NaN without labels.
      prefers_longer: share of the decided verdicts on pairs of unequal length that prefer the
        longer response (Wilson's interval).
    """

    slope: Estimate
    human: float
    prefers_longer: Estimate


class SelfPreference(NamedTuple):
    """Verdicts on pairs of a judge's own response and another's.

    Attributes:
      bias: P(judge prefers its own | people do) - P(judge prefers the other | people do), in
        [-1, 1]; 0 is no bias.
      own, other: the two terms.
      excess: mean preference of its own minus that of people, in [-1, 1].
    """

    bias: Estimate
    own: float
    other: float
    excess: float


def position_bias(
    first: ArrayLike,
    second: ArrayLike,
    *,
    tie_margin: float = 0.0,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PositionBias:
    """How far the slot decides, from the verdicts in both orders.

    Args:
      first: [n] P(A is preferred) where A is shown first, in [0, 1].
      second: [n] P(A is preferred) where A is shown second.
      tie_margin: a probability this near to 1/2 is a tie, in [0, 0.5).
      samples, confidence, seed: of the bootstrap over pairs.

    Raises:
      ValueError: empty or other shapes, NaN, or numbers out of range.
    """
    x, y = vectors(first=first, second=second, low=0, high=1)
    a, b = verdicts(x, tie_margin), verdicts(y, tie_margin)
    # P(first slot) is x in one order and 1 - y in the other
    slot = (x + 1 - y) / 2 - 0.5
    return PositionBias(
        bootstrap(slot, samples=samples, confidence=confidence, seed=seed),
        wilson(int((a == b).sum()), len(x), confidence=confidence),
        float(((a > 0) & (b < 0)).mean()),
        float(((a < 0) & (b > 0)).mean()),
    )


def length_bias(
    preference: ArrayLike,
    len_a: ArrayLike,
    len_b: ArrayLike,
    *,
    human: ArrayLike | None = None,
    confidence: float = 0.95,
) -> LengthBias:
    """Logistic regression preference ~ sigmoid(slope d + intercept [+ g (human - 1/2)]), d the
    length difference over its standard deviation.

    With human labels, the slope is what length adds to what people prefer.

    Args:
      preference: [n] of A over B, in [0, 1].
      len_a, len_b: [n] lengths, >= 0.
      human: [n] human preference of A, in [0, 1].
      confidence: of the intervals.

    Raises:
      ValueError: empty or other shapes, NaN, numbers out of range, equal differences, or verdicts
        that lengths (or labels) tell without error: the slope is infinite.
    """
    given = {"preference": preference} | ({} if human is None else {"human": human})
    p, *labels = vectors(**given, low=0, high=1)
    a, b = vectors(len_a=len_a, len_b=len_b, low=0)
    vectors(preference=p, len_a=a)
    difference = a - b
    spread = difference.std(ddof=1) if len(p) > 1 else 0.0
    if not spread > 0:
        raise ValueError("all length differences are equal: their effect cannot be estimated")
    x = np.stack([difference / spread, np.ones(len(p)), *(y - 0.5 for y in labels)], -1)
    weight = np.ones(len(p))
    result = _logistic.fit(x, p, weight[None])
    if not result.converged[0] or np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError("the slope is not finite: lengths or labels tell every verdict")
    w = result.coefficients[0]
    error = float(np.sqrt(_logistic.sandwich(x, p, weight, w)[0, 0]))
    # a plain count beside the slope, which needs a model
    decided = (p != 0.5) & (difference != 0)
    longer = int(((p > 0.5) == (difference > 0))[decided].sum())
    share = Estimate(np.nan, np.nan, np.nan)
    if decided.any():
        share = wilson(longer, int(decided.sum()), confidence=confidence)
    slope = normal_interval(float(w[0]), error, confidence)
    return LengthBias(slope, float(w[2]) if labels else np.nan, share)


def self_preference(
    preference: ArrayLike,
    human: ArrayLike,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> SelfPreference:
    """Difference of the judge's agreement with people between pairs where they prefer the judge's
    own response and pairs where they prefer the other.

    Args:
      preference: [n] of the judge for its own response, in [0, 1].
      human: [n] preference of people for that response, in [0, 1]; ties count in `excess` alone.
      samples, confidence, seed: of the bootstrap over pairs.

    Raises:
      ValueError: empty or other shapes, NaN, numbers out of range, or people never prefer the own,
        or never the other, response.
    """
    p, y = vectors(preference=preference, human=human, low=0, high=1)
    own, other = (y > 0.5).astype(float), (y < 0.5).astype(float)
    if not own.any() or not other.any():
        raise ValueError("people must prefer the own response somewhere, and the other somewhere")
    draws = []
    for counts in resample(len(p), samples, seed):
        sides = [(counts @ (s * q), counts @ s) for s, q in ((own, p), (other, 1 - p))]
        # a resample may hold pairs of one kind only
        some = (sides[0][1] > 0) & (sides[1][1] > 0)
        draws.append(np.subtract(*(top[some] / bottom[some] for top, bottom in sides)))
    low, high = percentiles(np.concatenate(draws), confidence)
    of_own, of_other = float(own @ p / own.sum()), float(other @ (1 - p) / other.sum())
    bias = Estimate(of_own - of_other, float(low), float(high))
    return SelfPreference(bias, of_own, of_other, float((p - y).mean()))
