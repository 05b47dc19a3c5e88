"""Masked sums and means in float32, shared by the other files."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float


def kept(x: Float[Array, "*P"], where: Bool[Array, "*P"]) -> Float[Array, "*P"]:
    """The array in float32, 0 outside of the mask; NaN is allowed there."""
    return jnp.where(where, jnp.asarray(x, jnp.float32), 0.0)


def mean(
    x: Float[Array, "*P"], where: Bool[Array, "*P"], axis: int | tuple[int, ...] | None = None
) -> Array:
    """Masked mean with the axes kept; 0 if the mask is empty."""
    total = jnp.sum(kept(x, where), axis, keepdims=True)
    # at least 1: an empty group divides 0 by 1 and not by 0
    return total / jnp.maximum(jnp.sum(where, axis, keepdims=True), 1)


def centered(
    x: Float[Array, "*P"], where: Bool[Array, "*P"], axis: int | tuple[int, ...] | None = None
) -> Float[Array, "*P"]:
    """x minus its masked mean; 0 outside of the mask."""
    # kept twice: before, so that NaN is not in the mean; after, since 0 - mean is not 0
    return kept(kept(x, where) - mean(x, where, axis), where)


def over_deviation(
    away: Float[Array, "*P"],
    x: Float[Array, "*P"],
    where: Bool[Array, "*P"],
    axis: int | tuple[int, ...],
    epsilon: float,
) -> Float[Array, "*P"]:
    """away / (standard deviation of x + epsilon); 0 where all x are equal, by decision: their
    rounding errors over epsilon would not be.
    """
    n = jnp.sum(where, axis, keepdims=True)
    # centered before squaring: the mean of squares minus the squared mean cancels in float32
    squares = jnp.sum(centered(x, where, axis) ** 2, axis, keepdims=True)
    # n - 1, as TRL, verl and OpenRLHF; for a group of 2 that is a factor of 1.4
    deviation = jnp.sqrt(squares / jnp.maximum(n - 1, 1))
    some = jnp.expand_dims(differ(x, where, axis), axis)
    return jnp.where(some, away / (jnp.where(some, deviation, 1.0) + epsilon), 0.0)


def differ(
    x: Float[Array, "*P"], where: Bool[Array, "*P"], axis: int | tuple[int, ...] = -1
) -> Bool[Array, "..."]:
    """Whether the entries in the mask differ."""
    # by comparison and not by a deviation, which rounding keeps above 0 for equal numbers
    high = jnp.max(jnp.where(where, x, -jnp.inf), axis)
    return high > jnp.min(jnp.where(where, x, jnp.inf), axis)
