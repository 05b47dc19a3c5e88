"""Attention in tiles and blocks of fixed sizes, in the order of the keys (`jalign.kernels.tiles`).

QUERIES queries of one row are multiplied with blocks of KEYS keys; blocks of masked keys add exact
zeros, so that neither the length of a row nor the size of a cache changes a bit. Shape letters as
in `jalign.kernels.attention`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jalign.kernels import devices
from jalign.kernels.attention import MASKED
from jalign.kernels.tiles import fused_alone, on_each_device, padded, unknown
from jalign.parallel.axes import BATCH_AXES

QUERIES = 8  # per tile: the sublanes of a TPU, and what one step of a CPU's product takes
KEYS = 64  # per block


def tiled_attention(
    q: Float[Array, "B N H C"],
    k: Float[Array, "B G S C"],
    v: Float[Array, "B G S C"],
    positions: Int[Array, "B N"],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
) -> Float[Array, "B N H C"]:
    """As `jalign.kernels.attention.cached_attention`."""
    options = {"scale": scale, "window": window, "softcap": softcap}
    fn = lambda sinks, *xs: _attend(options, sinks, *xs)  # noqa: E731
    return on_each_device(fn, BATCH_AXES, sinks, q, k, v, positions)


def _attend(
    options: dict[str, Any], sinks: Array | None, q: Array, k: Array, v: Array, positions: Array
) -> Array:
    b, n, h, c = q.shape
    g, tiles = k.shape[1], -(-n // QUERIES)
    q, positions = padded(q, 1, QUERIES), padded(positions, 1, QUERIES)
    k, v = padded(k, 2, KEYS), padded(v, 2, KEYS)
    if sinks is not None:  # of the rows of a tile: queries, and the heads of a group
        sinks = jnp.tile(sinks.astype(jnp.float32).reshape(g, h // g), (1, QUERIES))

    def tile(i: Array, out: Array) -> Array:
        row, first = i // tiles, i % tiles * QUERIES
        mine = jax.lax.dynamic_slice(q, (row, first, 0, 0), (1, QUERIES, h, c))
        # The query heads of a group share their keys: they are rows of one product.
        mine = mine.reshape(QUERIES, g, h // g, c).swapaxes(0, 1).reshape(g, -1, c)
        at = jax.lax.dynamic_slice(positions, (row, first), (1, QUERIES))[0]
        # Blocks after the last query add zeros, as masked keys in a block do.
        blocks = jnp.maximum(at.max(), 0) // KEYS + 1
        per_row = jnp.repeat(at, h // g)
        y = _sweep(fused_alone(mine), k, v, row, per_row, blocks, sinks=sinks, **options)
        y = y.reshape(g, QUERIES, h // g, c).swapaxes(0, 1).reshape(1, QUERIES, h, c)
        return jax.lax.dynamic_update_slice(out, y.astype(q.dtype), (row, first, 0, 0))

    return jax.lax.fori_loop(0, unknown(b * tiles, q), tile, jnp.zeros_like(q))[:, :n]


def _sweep(
    q: Float[Array, "G Q C"],
    k: Array,
    v: Array,
    row: Array,
    positions: Int[Array, " Q"],
    blocks: Array,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Float[Array, "G Q"] | None,
) -> Float[Array, "G Q C"]:
    """One tile over the blocks of its row's keys: the online softmax of Milakov and Gimelshein
    2018 (https://arxiv.org/abs/1805.02867), float32.
    """
    g, size, c = q.shape

    def body(i: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top, total, out = carry
        cut = lambda x: jax.lax.dynamic_slice(x, (row, 0, i * KEYS, 0), (1, g, KEYS, c))[0]  # noqa: E731
        keys, values = fused_alone((cut(k), cut(v)))
        slots = i * KEYS + jnp.arange(KEYS)
        seen = slots <= positions[:, None]
        if window is not None:
            seen &= slots > positions[:, None] - window
        z = scale * _product("gqc,gkc->gqk", q, keys)
        if softcap is not None:
            z = softcap * jnp.tanh(z / softcap)
        z = jnp.where(seen, z, MASKED)
        new = jnp.maximum(top, z.max(-1))
        shrink, p = jnp.exp(top - new), jnp.exp(z - new[..., None])
        out = out * shrink[..., None] + _product("gqk,gkc->gqc", p.astype(values.dtype), values)
        return fused_alone((new, total * shrink + p.sum(-1), out))

    zeros = jnp.zeros((g, size), jnp.float32)
    out = jnp.zeros((g, size, c), jnp.float32)
    start = (zeros + MASKED, zeros, out) if sinks is None else (sinks, zeros + 1.0, out)
    _, total, out = jax.lax.fori_loop(0, blocks, body, start)
    return fused_alone(out / total[..., None])


def _product(axes: str, a: Array, b: Array) -> Array:
    if devices.platform() == "cpu":  # which has no 16-bit product of these axes
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.einsum(axes, a, b, preferred_element_type=jnp.float32)
