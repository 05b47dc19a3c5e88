"""Batch statistics and the running values ("carry") that some losses keep between steps.

Inside `jax.shard_map` a loss sees the examples of one device; statistics are then taken over all
devices of the mesh axis (or axes) `axis_name`. None: the arrays are the whole batch.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

# a tuple where the batch is split over several mesh axes
Axis = str | tuple[str, ...] | None


def total(x: Array, axis_name: Axis = None) -> Array:
    """Sum over the batch."""
    return jnp.sum(x) if axis_name is None else jax.lax.psum(jnp.sum(x), axis_name)


def mean_where(
    x: Float[Array, "B"], mask: Bool[Array, "B"], axis_name: Axis = None
) -> Float[Array, ""]:
    """Masked mean; 0 if the mask is empty. Values outside of it may be NaN."""
    # divided once, over all devices: a mean of means would weight an almost empty one like a full
    return total(jnp.where(mask, x, 0.0), axis_name) / jnp.maximum(total(mask, axis_name), 1)


def of_all_devices(x: Array, axis_name: Axis = None) -> Array:
    """The whole batch, on every device."""
    # tiled: the shards are joined along the batch axis, without an axis of devices
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def of_this_device(x: Array, axis_name: Axis = None) -> Array:
    """This device's shard of a whole batch."""
    if axis_name is None:
        return x
    # axis_index counts several mesh axes in the order in which all_gather joins their shards
    size = x.shape[0] // jax.lax.axis_size(axis_name)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * size, size)


def ema(
    old: Float[Array, ""], new: Float[Array, ""], known: Bool[Array, ""], momentum: float
) -> Float[Array, ""]:
    """momentum * old + (1 - momentum) * new, without gradient.

    Starts at `new` if `old` is NaN, and returns `old` if the batch has no value (`known` is False).
    momentum = 1 returns `old` exactly.
    """
    # NaN means "no value yet": an average started at 0 would have to climb from there
    old = jnp.where(jnp.isnan(old), new, old)
    # old + (..)(new - old): a batch equal to the average leaves it unchanged, bit for bit
    return jax.lax.stop_gradient(jnp.where(known, old + (1 - momentum) * (new - old), old))
