"""Batch statistics and the running values ("carry") that some losses keep between steps.

Inside `jax.shard_map` a loss sees the examples of one device. Statistics are then of all of them,
over the mesh axis (or axes) `axis_name`; None: what a loss is given is the whole batch.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

Axis = str | tuple[str, ...] | None


def total(x: Array, axis_name: Axis = None) -> Array:
    """Sum over the batch."""
    return jnp.sum(x) if axis_name is None else jax.lax.psum(jnp.sum(x), axis_name)


def mean_where(
    x: Float[Array, "B"], mask: Bool[Array, "B"], axis_name: Axis = None
) -> Float[Array, ""]:
    """Mean of `x` where `mask`; 0 where nothing is. Values elsewhere may be NaN."""
    return total(jnp.where(mask, x, 0.0), axis_name) / jnp.maximum(total(mask, axis_name), 1)


def of_all_devices(x: Array, axis_name: Axis = None) -> Array:
    """The whole batch, on every device."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def of_this_device(x: Array, axis_name: Axis = None) -> Array:
    """This device's part of a whole batch."""
    if axis_name is None:
        return x
    size = x.shape[0] // jax.lax.axis_size(axis_name)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * size, size)


def ema(
    old: Float[Array, ""], new: Float[Array, ""], known: Bool[Array, ""], momentum: float
) -> Float[Array, ""]:
    """momentum * old + (1 - momentum) * new, without gradient.

    Starts at `new` where `old` is NaN, and stays at `old` where the batch tells nothing (`known`
    is False). momentum = 1 returns `old` exactly.
    """
    old = jnp.where(jnp.isnan(old), new, old)
    return jax.lax.stop_gradient(jnp.where(known, old + (1 - momentum) * (new - old), old))
