"""Products by group on CPU: one tile of rows after the other.

Letters: m rows, E groups, K inputs, N outputs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

# Rows per product: small groups waste little, large ones still use the cache.
TILE = 16


@jax.custom_vjp
def looped(x: Array, w: Array, sizes: Array) -> Array:
    """`jalign.kernels.grouped.grouped_matmul`, tile by tile."""
    starts, groups, count = tiles(sizes, len(x), TILE)
    padded = _padded(x)

    def body(i: Array, out: Array) -> Array:
        rows = jax.lax.dynamic_slice_in_dim(padded, starts[i], TILE)
        y = jnp.matmul(rows, w[groups[i]], preferred_element_type=jnp.float32).astype(x.dtype)
        # A tile may run into the next group, whose own tiles follow and overwrite those rows.
        return jax.lax.dynamic_update_slice_in_dim(out, y, starts[i], 0)

    out = jax.lax.fori_loop(0, count, body, jnp.zeros((len(padded), w.shape[2]), x.dtype))
    return out[: len(x)]


def _forward(x: Array, w: Array, sizes: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return looped(x, w, sizes), (x, w, sizes)


def _backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array, None]:
    x, w, sizes = saved
    starts, groups, count = tiles(sizes, len(x), TILE)
    padded_x, padded_dy, ends = _padded(x), _padded(dy), jnp.cumsum(sizes)

    def body(i: Array, dw: Array) -> Array:
        inside = starts[i] + jnp.arange(TILE) < ends[groups[i]]
        rows = jax.lax.dynamic_slice_in_dim(padded_x, starts[i], TILE)
        out = jax.lax.dynamic_slice_in_dim(padded_dy, starts[i], TILE)
        out = jnp.where(inside[:, None], out, 0)
        return dw.at[groups[i]].add(jnp.matmul(rows.T, out, preferred_element_type=jnp.float32))

    dw = jax.lax.fori_loop(0, count, body, jnp.zeros(w.shape, jnp.float32))
    return looped(dy, w.swapaxes(1, 2), sizes), dw.astype(w.dtype), None


looped.defvjp(_forward, _backward)


def tiles(sizes: Int[Array, " E"], m: int, tile: int) -> tuple[Array, Array, Array]:
    """The first row and the group of every tile of rows of one group, and how many there are; the
    last tile of a group may have fewer rows than `tile`.
    """
    most = -(-m // tile) + min(len(sizes), m)
    per_group = -(-sizes // tile)
    last = jnp.cumsum(per_group)
    index = jnp.arange(most)
    groups = jnp.minimum(jnp.searchsorted(last, index, side="right"), len(sizes) - 1)
    within = index - (last - per_group)[groups]
    return (jnp.cumsum(sizes) - sizes)[groups] + within * tile, groups, last[-1]


def _padded(x: Array) -> Array:
    return jnp.pad(x, ((0, TILE), (0, 0)))
