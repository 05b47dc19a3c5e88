"""Win rate of one model over another, each pair judged in both orders.

A judge prefers a slot, whatever stands in it, so each pair is asked twice with the responses
swapped. Wang et al. 2023, https://arxiv.org/abs/2305.17926; Zheng et al. 2023 (MT-Bench),
https://arxiv.org/abs/2306.05685, section 3.4, from which "consistency" is taken.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import vectors
from jalign.eval.metrics.bootstrap import bootstrap
from jalign.eval.metrics.estimate import Estimate
from jalign.eval.metrics.proportions import sign_test, wilson


class WinRate(NamedTuple):
    """How often A is preferred to B.

    Attributes:
      rate: mean preference of A in [0, 1], a tie 1/2; bootstrap over prompts.
      wins, ties, losses: prompts by their preference: above, at or below 1/2.
      position_consistency: share of prompts on which both orders agree (Wilson's interval).
      p_value: two-sided sign test of wins against losses.
    """

    rate: Estimate
    wins: int
    ties: int
    losses: int
    position_consistency: Estimate
    p_value: float


def preference(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """[n] preference of A on each prompt, (first + second) / 2: what `paired_bootstrap` compares.

    Args:
      first: [n] P(A is preferred) where A is shown first, in [0, 1]; 1/2 is a tie.
      second: [n] P(A is preferred) where A is shown second.

    Raises:
      ValueError: empty, other shapes, NaN, or numbers out of [0, 1].
    """
    x, y = vectors(first=first, second=second, low=0, high=1)
    return (x + y) / 2


def verdicts(p: np.ndarray, tie_margin: float) -> np.ndarray:
    """[n] 1 where p is above 1/2, -1 below, 0 within `tie_margin` of it."""
    if not 0 <= tie_margin < 0.5:
        raise ValueError(f"tie_margin must be in [0, 0.5), got {tie_margin}")
    return np.sign(p - 0.5) * (np.abs(p - 0.5) > tie_margin)


def win_rate(
    first: ArrayLike,
    second: ArrayLike,
    *,
    tie_margin: float = 0.0,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> WinRate:
    """Win rate of A over B: the mean over prompts of (first + second) / 2.

    A prompt on which the orders contradict each other with certainty is a tie.

    Args:
      first, second: [n], as in `preference`.
      tie_margin: a probability this near to 1/2 counts as a tie in the counts and the consistency,
        in [0, 0.5); the rate is not affected.
      samples, confidence, seed: of the bootstrap.

    Raises:
      ValueError: as `preference`, or a number out of its range.

    >>> result = win_rate([1.0, 1.0, 0.0, 0.5], [1.0, 0.0, 0.0, 1.0])
    >>> result.rate.value, result.wins, result.ties, result.losses
    (0.5625, 2, 1, 1)
    """
    p = preference(first, second)
    outcome = verdicts(p, tie_margin)
    wins, losses = int((outcome > 0).sum()), int((outcome < 0).sum())
    # of each order alone: the mean of two contradicting orders would hide the contradiction
    x, y = (verdicts(np.asarray(side, np.float64), tie_margin) for side in (first, second))
    return WinRate(
        rate=bootstrap(p, samples=samples, confidence=confidence, seed=seed),
        wins=wins,
        ties=len(p) - wins - losses,
        losses=losses,
        # Wilson's: a judge without any inconsistent prompt must not get an empty interval
        position_consistency=wilson(int((x == y).sum()), len(p), confidence=confidence),
        p_value=sign_test(wins, losses),
    )
