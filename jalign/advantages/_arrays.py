"""Float32 pieces that the other files share: sums over what is there."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float


def kept(x: Float[Array, "*P"], where: Bool[Array, "*P"]) -> Float[Array, "*P"]:
    """The array in float32, with 0 where there is nothing; NaN is allowed there."""
    return jnp.where(where, jnp.asarray(x, jnp.float32), 0.0)


def mean(
    x: Float[Array, "*P"], where: Bool[Array, "*P"], axis: int | tuple[int, ...] | None = None
) -> Array:
    """The mean of what is there, with the axes kept; 0 where there is nothing."""
    total = jnp.sum(kept(x, where), axis, keepdims=True)
    return total / jnp.maximum(jnp.sum(where, axis, keepdims=True), 1)


def centered(
    x: Float[Array, "*P"], where: Bool[Array, "*P"], axis: int | tuple[int, ...] | None = None
) -> Float[Array, "*P"]:
    """The distance of each from their mean; 0 where there is nothing."""
    return kept(kept(x, where) - mean(x, where, axis), where)


def differ(
    x: Float[Array, "*P"], where: Bool[Array, "*P"], axis: int | tuple[int, ...] = -1
) -> Bool[Array, "..."]:
    """Whether what is there is not all equal."""
    high = jnp.max(jnp.where(where, x, -jnp.inf), axis)
    return high > jnp.min(jnp.where(where, x, jnp.inf), axis)
