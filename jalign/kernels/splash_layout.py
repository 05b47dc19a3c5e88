"""How a TPU stores the heads that JAX's splash kernel reads.

A register holds 128 features ("lanes"). Heads of 128 fill one, heads of 64 share one with their
neighbor; both are stored with heads before tokens. Others are stored with tokens last.
Shape letters: B rows, T tokens, H query heads, G key/value heads, C head dim.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LANES = 128  # a TPU register's last axis; tokens come in multiples of it


def by_lanes(q: Array, k: Array) -> bool:
    """Whether heads of these queries and keys fill registers, one or a pair in each."""
    heads, kv_heads, head_dim = q.shape[2], k.shape[2], q.shape[3]
    # Both heads of a pair of queries have the same keys, or each its own.
    alike = kv_heads == heads or heads // kv_heads % 2 == 0
    in_pairs = 2 * head_dim == LANES and heads % 2 == 0 and kv_heads % 2 == 0 and alike
    return in_pairs or head_dim % LANES == 0


def as_read(q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """The same [B, T, heads, C], stored as the kernel reads them."""
    if not by_lanes(q, k):
        return tokens_last(q), tokens_last(k), tokens_last(v)

    def stored(x: Array) -> Array:
        b, t, _, c = x.shape
        return heads_first(x.reshape(b, t, -1, max(c, LANES))).reshape(x.shape)

    return stored(q), stored(k), stored(v)


def heads_first(x: Array) -> Array:
    """The same [B, T, H, C], stored [B, H, T, C], for heads that fill registers.

    Taken by eight tokens, which lie together in a tile of [T, H * C]: tiles move as they are.
    Attention of heads of 128 takes 15.0 instead of 18.1 ms with tokens last on a v5p by the
    compiler's cycles, 17.5 instead of 22.9 on a v6e (`jalign/plan/README.md`).
    """
    b, t, h, c = x.shape
    eights = x.reshape(b, t // 8, 8, h, c) if t % 8 == 0 else x[:, None]
    return eights.transpose(0, 3, 1, 2, 4).reshape(b, h, t, c).transpose(0, 2, 1, 3)


def tokens_first(o: Array) -> Array:
    """[B, H, T, C], T a multiple of 8, as [B, T, H, C] whose tiles are moved as they are."""
    b, h, t, c = o.shape
    return o.reshape(b, h, t // 8, 8, c).transpose(0, 2, 3, 1, 4).reshape(b, t, h, c)


def pairs(x: Array) -> Array:
    """[B, T, H, 64] as [B, H / 2, T, 128], as `heads_first` stores them."""
    b, t, _, _ = x.shape
    return x.reshape(b, t, -1, LANES).swapaxes(1, 2)


def halves(x: Array, heads: int) -> tuple[Array, Array]:
    """Keys or values [B, T, G, 64] of the first and of the second head of each pair of queries:
    [B, heads / 2 or G, T, 128] with zeros in the other half.
    """
    first = jnp.arange(LANES) < LANES // 2
    by_pair = pairs(x)
    if x.shape[2] == heads:
        return jnp.where(first, by_pair, 0), jnp.where(first, 0, by_pair)
    # Each serves both heads of its pairs. A product moves features exactly; a TPU would round
    # float32 to 16 bits.
    half = np.arange(LANES)[:, None] == np.arange(LANES) % (LANES // 2)
    to_both = np.stack((half, np.roll(half, LANES // 2, axis=0))).astype(x.dtype)
    both = jnp.einsum("bptc,jcd->bpjtd", by_pair, jnp.asarray(to_both), precision="highest")
    both = both.reshape(both.shape[0], -1, *both.shape[3:])
    return jnp.where(first, both, 0), jnp.where(first, 0, both)


def of_halves(sinks: Array | None) -> tuple[Array | None, Array | None]:
    return (None, None) if sinks is None else (sinks[::2], sinks[1::2])


def tokens_last(x: Array) -> Array:
    """The same [B, T, H, C], stored [B, H * C, T] as the kernel reads it.

    One copy after a gather of [N, H * C]. If heads were split first, there would be two, of heads
    padded to 128 lanes: an attention block of 64-wide heads takes 5.5 instead of 7.1 ms on a v6e by
    the compiler's cycles, of 128-wide ones 5.4 instead of 6.2.
    """
    b, t, h, c = x.shape
    # The barrier keeps the copy in 16 bits: what follows is computed in float32.
    flat = jax.lax.optimization_barrier(x.reshape(b, t, h * c).swapaxes(1, 2))
    return flat.reshape(b, h, c, t).transpose(0, 3, 1, 2)
