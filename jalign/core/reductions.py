"""How an unreduced loss becomes a mean over the examples, responses or tokens of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

Reduction = Callable[[dict[str, Array]], tuple[Array, Array]]
"""fields -> (weights that broadcast to the unreduced loss, divisor). Depends on masks and data
only, never on parameters, so that the divisor of an optimizer step is computed before the first
backward pass. If the data have a `weight`, the divisor is the sum of the weighted weights."""


class Mean(NamedTuple):
    """A mean before the division: micro-batches and devices add totals and counts, and the sum is
    divided once. Averaging their means instead would weight a short micro-batch like a full one.
    """

    total: Float[Array, ""]
    count: Float[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride]  # no tuple.count

    @classmethod
    def of(cls, x: Array, weights: Array) -> Mean:
        """Weighted sum of `x`; entries with weight 0 are ignored, even if NaN."""
        w = jnp.broadcast_to(weights, x.shape).astype(jnp.float32)
        # 0 * NaN is NaN, so weighting alone would not ignore them
        return cls(jnp.sum(jnp.where(w > 0, x, 0.0).astype(jnp.float32) * w), jnp.sum(w))

    @property
    def value(self) -> Float[Array, ""]:
        # not max(count, 1): weighted counts below 1 are legitimate
        return self.total / jnp.maximum(self.count, 1e-20)

    @property
    def shown(self) -> Float[Array, ""]:
        """The value for logging; NaN if nothing was averaged."""
        return jnp.where(self.count > 0, self.value, jnp.nan)


def mean_over_examples(fields: dict[str, Array]) -> tuple[Array, Array]:
    """Every example has the same weight."""
    return fields["present"], jnp.sum(fields["present"], dtype=jnp.float32)


def mean_over_tokens(fields: dict[str, Array]) -> tuple[Array, Array]:
    """Every scored token of the whole step counts the same."""
    return fields["mask"], jnp.sum(fields["mask"], dtype=jnp.float32)


def mean_over_chosen_tokens(fields: dict[str, Array]) -> tuple[Array, Array]:
    """Every token of a chosen response counts the same (for a loss that is already per token)."""
    weights = jnp.where(fields["present"], fields["chosen_len"], 0.0)
    return weights, jnp.sum(weights)


def mean_over_responses(fields: dict[str, Array]) -> tuple[Array, Array]:
    """The mean over a response's tokens, then over responses (seq-mean-token-mean)."""
    # lens is at least 1, so an empty slot weighs 0 and not NaN
    weights = fields["mask"] / fields["lens"][:, None]
    return weights, jnp.sum(fields["present"], dtype=jnp.float32)


def mean_over_pretraining_tokens(fields: dict[str, Array]) -> tuple[Array, Array]:
    """Every token of the pretraining text counts the same."""
    mask = fields["pretraining_mask"]
    return mask, jnp.sum(mask, dtype=jnp.float32)


@dataclass(frozen=True)
class SumOverLongest:
    """The sum over tokens, divided by responses times the most tokens that a response can have
    (seq-mean-token-sum-norm): no response's length weighs its tokens.

    Attributes:
      most: tokens that a response can have. A run knows it (`rollout.max_new_tokens`, by
        `Algorithm.with_longest_response`); 0 is the width of the mask.
    """

    most: int = 0

    def __call__(self, fields: dict[str, Array]) -> tuple[Array, Array]:
        longest = self.most or fields["mask"].shape[-1]
        return fields["mask"], longest * jnp.sum(fields["present"], dtype=jnp.float32)


sum_over_longest = SumOverLongest()
