"""Causal self-attention over right-padded rows: one function, several implementations.

All implementations give the same values and gradients. Right padding needs no mask: a real token
attends only to earlier tokens, which are never padding. Softmax is always in float32.
`jalign.kernels.backend.choose_attention` selects the one for a device.

Shape letters: B rows, T tokens, S cache slots, N query tokens, H query heads, G key/value heads,
C head dim.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float, Int

from jalign.kernels import devices
from jalign.kernels.blocked import blocked_attention
from jalign.kernels.remat import ATTENTION_INPUT
from jalign.kernels.splash import splash_attention

MASKED = -1e30  # finite, so that a row with nothing to see gives no NaN


def attention(
    q: Float[Array, "B T H C"],
    k: Float[Array, "B T G C"],
    v: Float[Array, "B T G C"],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " H"] | None = None,
    implementation: str,
) -> Float[Array, "B T H C"]:
    """softmax(cap(scale * q k^T)) v over the tokens up to each query.

    Args:
      scale: factor of the logits, usually C ** -0.5.
      window: each query sees itself and the `window - 1` tokens before it; None sees all before it.
      softcap: logits z become softcap * tanh(z / softcap); None leaves them.
      sinks: a logit per head of a token whose value is zero, which every query sees (GPT-OSS).
      implementation: xla (plain, anywhere) | blocked (CPU) | cudnn (CUDA, 16-bit) | splash (TPU).

    Raises:
      ValueError: for an unknown implementation, an empty window, heads that do not divide into
        groups, or a soft cap or sinks with cudnn.
    """
    if implementation not in IMPLEMENTATIONS:
        known = ", ".join(IMPLEMENTATIONS)
        raise ValueError(
            f"attention implementation {implementation!r} is unknown; there is: {known}"
        )
    if window is not None and window < 1:
        raise ValueError(f"an attention window holds at least the token itself, got {window}")
    if q.shape[2] % k.shape[2]:
        raise ValueError(
            f"{q.shape[2]} query heads do not divide into {k.shape[2]} key/value heads"
        )
    run = IMPLEMENTATIONS[implementation]
    q, k, v = checkpoint_name((q, k, v), ATTENTION_INPUT)
    return run(q, k, v, scale=scale, window=window, softcap=softcap, sinks=sinks)


def cached_attention(
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
    """Attention of new tokens to a key/value cache: a query at position p sees cache slots j <= p
    (and j > p - window).

    The cache already holds the new tokens' own keys and values at `positions`. Other arguments as
    in `attention`.
    """
    # Slots that are not written yet need no mask of their own: they lie after every position.
    slots = jnp.arange(k.shape[2])
    seen = slots <= positions[..., None]
    if window is not None:
        seen &= slots > positions[..., None] - window
    return _plain(q, k, v, seen, scale, softcap, sinks, order="bgsc")


def _xla(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Array | None,
) -> Array:
    slots = jnp.arange(q.shape[1])
    seen = slots <= slots[:, None]
    if window is not None:
        seen &= slots > slots[:, None] - window
    return _plain(q, k, v, seen[None], scale, softcap, sinks)


def _plain(
    q: Array,
    k: Array,
    v: Array,
    seen: Array,
    scale: float,
    softcap: float | None,
    sinks: Array | None,
    order: str = "bsgc",
) -> Array:
    """Attention with the scores in memory; `seen` [B or 1, N, S], `order` of the axes of k and v.
    Query heads are grouped, so k and v are never repeated.
    """
    b, n, h, c = q.shape
    grouped = q.reshape(b, n, k.shape[order.index("g")], -1, c)
    kept = v.dtype
    if order != "bsgc" and devices.platform() == "cpu":
        # XLA:CPU has no product of 16-bit arrays in this order; as float32 they have the same one
        grouped, k, v = (x.astype(jnp.float32) for x in (grouped, k, v))
    z = jnp.einsum(f"bngrc,{order}->bgrns", grouped, k, preferred_element_type=jnp.float32)
    z = scale * z
    if softcap is not None:
        z = softcap * jnp.tanh(z / softcap)
    z = jnp.where(seen[:, None, None], z, MASKED)
    if sinks is None:
        p = jax.nn.softmax(z, axis=-1)
    else:
        sink = sinks.astype(jnp.float32).reshape(1, *z.shape[1:3], 1, 1)
        top = jax.lax.stop_gradient(jnp.maximum(z.max(-1, keepdims=True), sink))
        p = jnp.exp(z - top)
        p = p / (p.sum(-1, keepdims=True) + jnp.exp(sink - top))
    # Rounded to the cache's type also where it was widened, so that CPU and accelerators agree.
    p = p.astype(kept).astype(v.dtype)
    o = jnp.einsum(f"bgrns,{order}->bngrc", p, v, preferred_element_type=jnp.float32)
    return o.astype(q.dtype).reshape(b, n, h, c)


def _cudnn(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Array | None,
) -> Array:
    if sinks is not None:
        raise ValueError("cudnn attention has no sinks, and this model has them; use xla")
    if softcap is not None:
        raise ValueError(
            f"cudnn attention has no soft cap, and this model caps its logits at {softcap}; use xla"
        )
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        scale=scale,
        # No mask beside it: right padding needs none, and one of [B, H, T, T] takes 9 x the memory.
        is_causal=True,
        # (to the left, to the right), the token itself not counted
        local_window_size=None if window is None else (window - 1, 0),
        implementation="cudnn",
    )


IMPLEMENTATIONS = {
    "xla": _xla,
    "blocked": blocked_attention,
    "cudnn": _cudnn,
    "splash": splash_attention,
}
