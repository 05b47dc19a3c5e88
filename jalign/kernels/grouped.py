"""Products of rows with the matrix of their group: the experts of a mixture.

Rows come sorted by group, so that group g is the `sizes[g]` rows after those of earlier groups, and
the products take no more arithmetic than the rows need, whatever the sizes are.

Accelerators run `jax.lax.ragged_dot`; for TPUs XLA has a kernel of it that skips rows without a
group. On CPU JAX multiplies every row with every group and masks, so here a loop over tiles of rows
does it instead.

Letters: m rows, E groups, K inputs, N outputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jalign.kernels import devices

# Rows per product of the loop: small groups waste little, large ones still use the cache.
TILE = 16


def grouped_matmul(
    x: Float[Array, "m K"], w: Float[Array, "E K N"], sizes: Int[Array, " E"]
) -> Float[Array, "m N"]:
    """x[i] w[g] for the group g of row i, in the dtype of x, summed in float32. In rows after the
    last group the result and the gradient of x are unspecified.
    """
    return (_looped if devices.platform() == "cpu" else jax.lax.ragged_dot)(x, w, sizes)


@jax.custom_vjp
def _looped(x: Array, w: Array, sizes: Array) -> Array:
    starts, groups, count = _tiles(sizes, len(x))
    padded = _padded(x)

    def body(i: Array, out: Array) -> Array:
        rows = jax.lax.dynamic_slice_in_dim(padded, starts[i], TILE)
        y = jnp.matmul(rows, w[groups[i]], preferred_element_type=jnp.float32).astype(x.dtype)
        # A tile may run into the next group, whose own tiles follow and overwrite those rows.
        return jax.lax.dynamic_update_slice_in_dim(out, y, starts[i], 0)

    out = jax.lax.fori_loop(0, count, body, jnp.zeros((len(padded), w.shape[2]), x.dtype))
    return out[: len(x)]


def _forward(x: Array, w: Array, sizes: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _looped(x, w, sizes), (x, w, sizes)


def _backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array, None]:
    x, w, sizes = saved
    starts, groups, count = _tiles(sizes, len(x))
    padded_x, padded_dy, ends = _padded(x), _padded(dy), jnp.cumsum(sizes)

    def body(i: Array, dw: Array) -> Array:
        inside = starts[i] + jnp.arange(TILE) < ends[groups[i]]
        rows = jax.lax.dynamic_slice_in_dim(padded_x, starts[i], TILE)
        out = jax.lax.dynamic_slice_in_dim(padded_dy, starts[i], TILE)
        out = jnp.where(inside[:, None], out, 0)
        return dw.at[groups[i]].add(jnp.matmul(rows.T, out, preferred_element_type=jnp.float32))

    dw = jax.lax.fori_loop(0, count, body, jnp.zeros(w.shape, jnp.float32))
    return _looped(dy, w.swapaxes(1, 2), sizes), dw.astype(w.dtype), None


_looped.defvjp(_forward, _backward)


def _tiles(sizes: Int[Array, " E"], m: int) -> tuple[Array, Array, Array]:
    """The first row and the group of every tile, and how many there are."""
    most = -(-m // TILE) + len(sizes)
    per_group = -(-sizes // TILE)
    last = jnp.cumsum(per_group)
    tiles = jnp.arange(most)
    groups = jnp.minimum(jnp.searchsorted(last, tiles, side="right"), len(sizes) - 1)
    within = tiles - (last - per_group)[groups]
    return (jnp.cumsum(sizes) - sizes)[groups] + within * TILE, groups, last[-1]


def _padded(x: Array) -> Array:
    return jnp.pad(x, ((0, TILE), (0, 0)))
