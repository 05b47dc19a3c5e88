"""Log-probs of sampled responses under a teacher that reads other prompts than the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

from jalign.core import Frozen
from jalign.data.examples import Examples
from jalign.rollout.types import Rollout
from jalign.train.scoring import ResponseScorer


class Teacher(NamedTuple):
    """The reference as a teacher.

    Attributes:
      prompts: what it reads, by the index of the policy's prompt.
      scorer: with room for these prompts.
    """

    prompts: Examples
    scorer: ResponseScorer

    def __call__(
        self, indices: Sequence[int], rollout: Rollout, params: PyTree, frozen: Frozen
    ) -> np.ndarray:
        """[B, K, R] log-probs, nats, 0 outside of responses."""
        prompts = tuple(self.prompts.segments(i)[0] for i in indices)
        # routes are those of the policy after its own prompt
        other = rollout._replace(prompts=prompts, experts=None)
        return self.scorer(other, ("ref_token_logps",), params, frozen)["ref_token_logps"]
