"""Batch statistics and the running values ("carry") that some losses keep between steps."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float


def mean_where(x: Float[Array, "B"], mask: Bool[Array, "B"]) -> Float[Array, ""]:
    """Mean of `x` where `mask`; 0 where nothing is. What stands elsewhere may be NaN."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(mask.sum(), 1)


def ema(
    old: Float[Array, ""], new: Float[Array, ""], known: Bool[Array, ""], momentum: float
) -> Float[Array, ""]:
    """momentum * old + (1 - momentum) * new, without gradient.

    Starts at `new` where `old` is NaN, and stays at `old` where the batch tells nothing (`known`
    is False). momentum = 1 returns `old` exactly.
    """
    old = jnp.where(jnp.isnan(old), new, old)
    return jax.lax.stop_gradient(jnp.where(known, old + (1 - momentum) * (new - old), old))
