"""The rewards of a rollout."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float
from numpy import ndarray


class Judged(NamedTuple):
    """Rewards of K responses to each of B prompts; None if not computed.

    Attributes:
      scores: [B, K] float64 reward of a response, NaN if missing.
      win_probs: [B, K, K] probability that the first response is preferred to the second, NaN where
        that is not known.
      metrics: means of the parts of the reward, and counts of failures, for the log.
      step_scores: [B, K, R] float64, the reward of a step at its last token, NaN at every other.
        `scores` are then their means, NaN where the reward of a step is missing.
      failures: name of a reward that failed -> for how many responses and why.
      parts: [B, K, N] float64 rewards that `scores` adds up, NaN where one is missing.
      part_weights: [N] their weights.
    """

    scores: Float[ndarray, "B K"] | None
    win_probs: Float[ndarray, "B K K"] | None
    metrics: dict[str, float]
    step_scores: Float[ndarray, "B K R"] | None = None
    failures: Mapping[str, str] = MappingProxyType({})
    parts: Float[ndarray, "B K N"] | None = None
    part_weights: Float[ndarray, "N"] | None = None
