"""Gathers from the flat token stream to attention rows and back, with gradients that only gather.

The transpose of a gather is a scatter-add, which is slow on every accelerator. Here both directions
are known on the host (`rows` and `inverse` of `jalign.layout.Layout`), so each gather's gradient is
written as the other gather.

Shape letters: S streams, N tokens per stream, M rows per stream, T tokens per row, K copies of a
token at most, C leading tokens of a stream that may have several.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int, Shaped

from jalign.layout import Inverse


def expand(
    x: Shaped[Array, "S N *F"], rows: Int[Array, "S M T"], inverse: Inverse
) -> Shaped[Array, "S M T *F"]:
    """Row r, position t takes stream token `rows[r, t]`; unused positions take token N - 1, which
    is never a real one.

    The gradient of a token is the sum over its copies, in float32.

    Args:
      x: one value per stream token; `*F` is any number of feature axes.
      rows: index in the stream of each row's tokens.
      inverse: indices of a token's copies in the flattened rows [M * T].
    """
    y = jax.vmap(_expand)(_one_feature_axis(x), rows, inverse)
    return y.reshape(*rows.shape, *x.shape[2:])


def collapse(
    y: Shaped[Array, "S M T *F"], rows: Int[Array, "S M T"], inverse: Inverse
) -> Shaped[Array, "S N *F"]:
    """Every stream token takes the value of its first copy in the rows; a token in no row takes 0.

    All copies of a shared prompt hold the same value (causal attention over the same tokens), so
    reading one is enough, and the gradient goes to that one alone. Arguments as in `expand`.
    """
    x = jax.vmap(_collapse)(_one_feature_axis(y, 3), rows, inverse)
    return x.reshape(*inverse.first.shape, *y.shape[3:])


def _one_feature_axis(x: Array, start: int = 2) -> Array:
    """Features from axis `start` on as one: a TPU tiles the last two axes, so that a gather of
    [N, H, C] copies everything into another layout and back, and one of [N, H * C] does not.
    """
    return x.reshape(*x.shape[:start], -1) if x.ndim > start + 1 else x


def _take(flat: Array, indices: Array) -> Array:
    """`flat[indices]`, and 0 where an index is past the end."""
    return jnp.take(flat, indices, axis=0, mode="fill", fill_value=0)


def _flatten(y: Array) -> Array:
    return y.reshape(-1, *y.shape[2:])


@jax.custom_vjp
def _expand(x: Array, rows: Array, inverse: Inverse) -> Array:
    # Every entry of `rows` is in range by construction; without the promise XLA masks the result.
    return x.at[rows].get(mode="promise_in_bounds")


def _expand_fwd(x: Array, rows: Array, inverse: Inverse):
    return _expand(x, rows, inverse), inverse


def _expand_bwd(inverse: Inverse, g: Array):
    flat = _flatten(g)
    dx = _take(flat, inverse.first)
    shared, more = inverse.more.shape
    if not inverse.more.size:
        return dx, None, None
    # A prompt shared by K responses sums K gradients; bfloat16 would round every partial sum.
    copies = [_take(flat, inverse.more[:, k]).astype(jnp.float32) for k in range(more)]
    around = ((0, len(dx) - shared), *((0, 0),) * (dx.ndim - 1))
    rest = jnp.pad(sum(copies[1:], copies[0]), around)
    return (dx.astype(jnp.float32) + rest).astype(g.dtype), None, None


_expand.defvjp(_expand_fwd, _expand_bwd)


@jax.custom_vjp
def _collapse(y: Array, rows: Array, inverse: Inverse) -> Array:
    return _take(_flatten(y), inverse.first)


def _collapse_fwd(y: Array, rows: Array, inverse: Inverse):
    return _collapse(y, rows, inverse), (rows, inverse.first)


def _collapse_bwd(saved: tuple[Array, Array], g: Array):
    rows, first = saved
    here = jnp.arange(rows.size, dtype=first.dtype).reshape(rows.shape)
    is_first = first.at[rows].get(mode="promise_in_bounds") == here
    dy = g.at[rows].get(mode="promise_in_bounds")
    return jnp.where(is_first.reshape(*is_first.shape, *(1,) * (g.ndim - 1)), dy, 0), None, None


_collapse.defvjp(_collapse_fwd, _collapse_bwd)
