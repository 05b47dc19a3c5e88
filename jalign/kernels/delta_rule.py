"""The gated delta rule (Yang, Kautz and Hatamizadeh 2024, https://arxiv.org/abs/2412.06464): linear
attention whose state forgets, and corrects what it holds of a key instead of adding to it.

    S_t = a_t S_{t-1} + b_t k_t (v_t - a_t S_{t-1}^T k_t)^T      o_t = S_t^T q_t

with a_t = exp(log_decay_t). Tokens are taken in chunks: within one the corrections are the solution
of a triangular system, and only the states between chunks follow one another (section 3.3 there).
Everything is float32.

Shape letters: B rows, T tokens, G heads of queries and keys, H heads of values, K and V widths of
their heads, c tokens of a chunk.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

CHUNK = 64

# TPUs would multiply in bfloat16, and errors of the state add up over a row.
_HIGHEST = jax.lax.Precision.HIGHEST


def gated_delta_rule(
    q: Float[Array, "B T G K"],
    k: Float[Array, "B T G K"],
    v: Float[Array, "B T H V"],
    log_decay: Float[Array, "B T H"],
    beta: Float[Array, "B T H"],
    state: Float[Array, "B H K V"] | None = None,
) -> tuple[Float[Array, "B T H V"], Float[Array, "B H K V"]]:
    """The outputs o, in the type of v, and the last state.

    Args:
      q, k: each head serves H / G neighboring heads of values.
      log_decay: at most 0.
      beta: step, in [0, 1]. A token with log_decay 0 and beta 0 leaves the state as it is.
      state: before the first token; None is 0.
    """
    rows, tokens, heads, width = v.shape
    q, k = (jnp.repeat(x, heads // x.shape[2], axis=2) for x in (q, k))
    dtype = v.dtype
    # [B, H, T, ...]
    q, k, v, log_decay, beta = (
        x.swapaxes(1, 2).astype(jnp.float32) for x in (q, k, v, log_decay, beta)
    )
    if state is None:
        state = jnp.zeros((rows, heads, k.shape[-1], width), jnp.float32)
    size = min(CHUNK, tokens)
    parts = (_chunks(x, size) for x in (q, k, v, log_decay, beta))
    state, out = jax.lax.scan(_one_chunk, state.astype(jnp.float32), tuple(parts))
    out = jnp.moveaxis(out, 0, 2).reshape(rows, heads, -1, width)[:, :, :tokens]
    return out.swapaxes(1, 2).astype(dtype), state


def _chunks(x: Array, size: int) -> Array:
    """[B, H, T, ...] -> [chunks, B, H, c, ...], filled up with zeros, which change no state."""
    rows, heads, tokens, *rest = x.shape
    empty = -tokens % size
    x = jnp.pad(x, ((0, 0), (0, 0), (0, empty), *((0, 0) for _ in rest)))
    return jnp.moveaxis(x.reshape(rows, heads, -1, size, *rest), 2, 0)


def _one_chunk(
    state: Float[Array, "B H K V"], chunk: tuple[Array, ...]
) -> tuple[Float[Array, "B H K V"], Float[Array, "B H c V"]]:
    q, k, v, log_decay, beta = chunk
    decay = jnp.cumsum(log_decay, -1)  # from the start of the chunk on, in logarithms
    # Masked before the exponential, which would overflow above the diagonal.
    later = jnp.tril(jnp.ones((q.shape[2],) * 2, bool))
    between = jnp.exp(jnp.where(later, decay[..., :, None] - decay[..., None, :], -jnp.inf))
    since, until = jnp.exp(decay)[..., None], jnp.exp(decay[..., -1:] - decay)[..., None]
    # (1 + lower triangle) x = beta (v - what the state before the chunk says of k)
    system = _product("bhik,bhjk->bhij", beta[..., None] * k, k) * between
    known = v - _product("bhik,bhkv->bhiv", k * since, state)
    written = jax.lax.linalg.triangular_solve(
        system, beta[..., None] * known, left_side=True, lower=True, unit_diagonal=True
    )
    seen = _product("bhik,bhjk->bhij", q, k) * between
    out = _product("bhik,bhkv->bhiv", q * since, state)
    out = out + _product("bhij,bhjv->bhiv", seen, written)
    state = state * jnp.exp(decay[..., -1])[..., None, None]
    return state + _product("bhik,bhiv->bhkv", k * until, written), out


def _product(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, precision=_HIGHEST)
