"""Protocols of an online run's components: sampler, reward, observer of rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import numpy as np

from jalign.core import Frozen, TrainState
from jalign.rewards.types import Judged
from jalign.rollout.types import Rollout


class Sampler(Protocol):
    """Samples K responses to each prompt from the policy.

    The one of a run is `jalign.run.rollouts.sampler_of`. Another engine plugs in with this
    signature and `Rollout.from_lists`; it must sample from `state.params`, and the same for the
    same `key` if the run is to be resumed exactly.
    """

    def __call__(
        self, state: TrainState, frozen: Frozen, indices: Sequence[int], key: jax.Array, /
    ) -> Rollout:
        """Responses to the prompts of these indices. Every process must call it."""
        ...


class JudgeRollout(Protocol):
    """Judges sampled responses: a `jalign.run.rewards.RewardFn` with its prompts bound."""

    def __call__(self, indices: Sequence[int], rollout: Rollout, /) -> Judged:
        """Rewards of the responses to the prompts of these indices. Every process must call it."""
        ...


class OnRollout(Protocol):
    """Observes all samples, including those that are not learned from."""

    def __call__(
        self,
        number: tuple[int, int],
        indices: Sequence[int],
        rollout: Rollout,
        arrays: Mapping[str, np.ndarray],
        /,
    ) -> None:
        """Called once per attempt.

        Args:
          number: (rollout, attempt to fill it).
          indices: of the prompts.
          arrays: `core.ROLLOUT` with rewards as they were given, and the fields made of them.
        """
        ...
