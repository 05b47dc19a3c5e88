"""Attention for TPUs: JAX's splash kernel, on each device's own rows and heads."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jalign.kernels.sharding import shard_over_rows_and_heads

LANES = 128  # a TPU register's last axis; tokens come in multiples of it
BLOCK = 512


def splash_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Array | None,
) -> Array:
    """See `jalign.kernels.attention.attention`. Rows are padded on the right to a multiple of the
    block, which no real token sees.
    """
    run = functools.partial(_local, scale=scale, window=window, softcap=softcap)
    return shard_over_rows_and_heads(run, q, k, v, sinks)


def fills_lanes(head_dim: int) -> bool:
    """Whether a head of one token is whole registers."""
    return head_dim % LANES == 0


def as_read(x: Array) -> Array:
    """The same [B, T, H, C], stored as the kernel reads it."""
    return heads_first(x) if fills_lanes(x.shape[-1]) else tokens_last(x)


def heads_first(x: Array) -> Array:
    """The same [B, T, H, C], stored [B, H, T, C], for heads that fill registers.

    Taken by eight tokens, which lie together in a tile of [T, H * C]: tiles move as they are.
    Attention of heads of 128 takes 15.0 instead of 18.1 ms with tokens last on a v5p by the
    compiler's cycles, 17.5 instead of 22.9 on a v6e (`jalign/plan/README.md`).
    """
    b, t, h, c = x.shape
    eights = x.reshape(b, t // 8, 8, h, c) if t % 8 == 0 else x[:, None]
    return eights.transpose(0, 3, 1, 2, 4).reshape(b, h, t, c).transpose(0, 2, 1, 3)


def _tokens_first(o: Array) -> Array:
    """[B, H, T, C], T a multiple of 8, as [B, T, H, C] whose tiles are moved as they are."""
    b, h, t, c = o.shape
    return o.reshape(b, h, t // 8, 8, c).transpose(0, 2, 3, 1, 4).reshape(b, t, h, c)


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


def _local(
    q: Array,
    k: Array,
    v: Array,
    sinks: Array | None,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Array:
    # Imported here: Pallas costs half a second, and only TPUs need it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    tokens, heads = q.shape[1], q.shape[2]
    block = min(BLOCK, -(-tokens // LANES) * LANES)
    length = -(-tokens // block) * block
    shape = (length, length)
    mask = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, (window - 1, 0), 0)
    layouts = kernel.QKVLayout
    layout = layouts.HEAD_DIM_MINOR if fills_lanes(q.shape[-1]) else layouts.SEQ_MINOR
    attend = kernel.make_splash_mha(
        mask=masks.MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap,
        block_sizes=kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_kv_compute=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            block_q_dq=block,
            block_kv_dq=block,
            q_layout=layout,
            k_layout=layout,
            v_layout=layout,
        ),
    )

    def padded(x: Array) -> Array:
        return jnp.pad(x, ((0, 0), (0, length - tokens), (0, 0), (0, 0))).transpose(0, 2, 1, 3)

    o: Any = jax.vmap(functools.partial(attend, sinks=sinks))(
        padded(q),
        # splash takes no scale; keys have fewer heads to multiply than queries.
        padded((k * scale).astype(k.dtype)),
        padded(v),
    )
    o = _tokens_first(o) if fills_lanes(q.shape[-1]) else o.transpose(0, 2, 1, 3)
    return o[:, :tokens]
