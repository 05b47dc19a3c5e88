"""Helpers of losses over the tokens of sampled responses.

Values at unscored positions may be NaN: they are replaced before any arithmetic, so that they reach
neither the loss nor the gradient.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require

LIMIT = 20.0  # nats: a ratio lies within exp(-20) and exp(20) = 5e8, beyond it has no gradient


def scored(mask: Bool[Array, "B R"], *arrays: Float[Array, "B R"]) -> tuple[Array, ...]:
    """The arrays in float32, with 0 at unscored positions."""
    # before any arithmetic: a NaN that is masked afterwards still makes the gradient NaN
    return tuple(jnp.where(mask, x, 0.0) for x in f32(*arrays))


def recorded(mask: Bool[Array, "B R"], *arrays: Float[Array, "B R"]) -> tuple[Array, ...]:
    """`scored`, for arrays recorded in the rollout: without gradient."""
    return tuple(jax.lax.stop_gradient(x) for x in scored(mask, *arrays))


def log_ratios(
    token_logps: Float[Array, "B R"], old_token_logps: Float[Array, "B R"], mask: Bool[Array, "B R"]
) -> Float[Array, "B R"]:
    """log p(token) - log p_old(token) at scored positions, 0 elsewhere."""
    # no gradient into `old`: a first step has the present log-probs there, and p / p has none
    (logps,), (old,) = scored(mask, token_logps), recorded(mask, old_token_logps)
    return logps - old


def bounded(log_ratio: Float[Array, "*P"]) -> Float[Array, "*P"]:
    """A log-ratio that can be exponentiated."""
    return jnp.clip(log_ratio, -LIMIT, LIMIT)


def mean_of_response(x: Float[Array, "B R"], mask: Bool[Array, "B R"]) -> Float[Array, "B"]:
    """The mean over scored positions; 0 where there are none."""
    # an empty slot divides 0 by 1
    return jnp.sum(jnp.where(mask, x, 0.0), -1) / jnp.maximum(jnp.sum(mask, -1), 1)


def of_response(x: Float[Array, "B R"], mask: Bool[Array, "B R"]) -> Float[Array, "B"]:
    """The value at the first scored position; 0 where there is none."""
    # the first SCORED token: position 0 may belong to a tool's reply
    first = jnp.argmax(mask, -1, keepdims=True)
    return jnp.take_along_axis(jnp.where(mask, x, 0.0), first, -1)[:, 0]


def approx_kl(log_ratio: Float[Array, "*P"]) -> Float[Array, "*P"]:
    """ratio - 1 - log ratio, whose mean over samples of the old policy is KL(old || new)."""
    log_ratio = bounded(log_ratio)
    # near a ratio of 1 the value is x^2 / 2, which exp(x) - 1 rounds away in float32
    return jnp.expm1(log_ratio) - log_ratio


def clipped(
    ratio: Float[Array, "*P"], advantages: Float[Array, "*P"], clip_low: float, clip_high: float
) -> tuple[Float[Array, "*P"], dict[str, Float[Array, "*P"]]]:
    """max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high)), and where the bound is active.

    The bound is constant, so the gradient is 0 where it is active: above for A > 0, below for A <
    0. A ratio on the wrong side, which the step should bring back, keeps its gradient.
    """
    require(clip_low > 0, f"clip_low must be > 0, got {clip_low}")
    require(clip_high > 0, f"clip_high must be > 0, got {clip_high}")
    # by the sign of A: inverted, the clip would freeze exactly the tokens that have to come back
    low = (advantages < 0) & (ratio < 1 - clip_low)
    high = (advantages > 0) & (ratio > 1 + clip_high)
    # a where, not min(a, b): the bound is a constant, so the gradient there is exactly 0
    ratio = jnp.where(low, 1 - clip_low, jnp.where(high, 1 + clip_high, ratio))
    return -advantages * ratio, {
        "clip_ratio/low_mean": low.astype(jnp.float32),
        "clip_ratio/high_mean": high.astype(jnp.float32),
    }
