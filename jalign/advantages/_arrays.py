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


def differ(
    x: Float[Array, "*P"], where: Bool[Array, "*P"], axis: int | tuple[int, ...] = -1
) -> Bool[Array, "..."]:
    """Whether the entries in the mask differ."""
    # by comparison and not by a deviation, which rounding keeps above 0 for equal numbers
    high = jnp.max(jnp.where(where, x, -jnp.inf), axis)
    return high > jnp.min(jnp.where(where, x, jnp.inf), axis)
