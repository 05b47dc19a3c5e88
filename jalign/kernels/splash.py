"""Attention for TPUs: JAX's splash kernel, on each device's own rows and heads."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from jalign.kernels.remat import ATTENTION_OUTPUT
from jalign.kernels.sharding import shard_over_rows_and_heads
from jalign.kernels.splash_layout import (
    LANES,
    by_lanes,
    halves,
    of_halves,
    pairs,
    tokens_first,
)

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
    fills_lanes = by_lanes(q, k)
    paired = fills_lanes and q.shape[-1] < LANES
    layout = layouts.HEAD_DIM_MINOR if fills_lanes else layouts.SEQ_MINOR
    attend = kernel.make_splash_mha(
        mask=masks.MultiHeadMask([mask] * (heads // 2 if paired else heads)),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name=ATTENTION_OUTPUT,
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
        return jnp.pad(x, ((0, 0), (0, length - tokens), (0, 0), (0, 0)))

    # splash takes no scale; keys have fewer heads to multiply than queries.
    q, k, v = (padded(x) for x in (q, (k * scale).astype(k.dtype), v))
    over_rows = lambda sinks: jax.vmap(functools.partial(attend, sinks=sinks))  # noqa: E731
    if paired:
        # Products of 128 features, half of them zeros, take a matrix unit no longer than of 64.
        of_each = zip(halves(k, heads), halves(v, heads), of_halves(sinks), strict=True)
        o = sum(over_rows(sink)(pairs(q), k, v) for k, v, sink in of_each)
    else:
        o = over_rows(sinks)(*(x.transpose(0, 2, 1, 3) for x in (q, k, v)))
    o = tokens_first(o) if fills_lanes else o.transpose(0, 2, 1, 3)
    return o.reshape(*o.shape[:2], heads, -1)[:, :tokens]
