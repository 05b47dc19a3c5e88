"""Turning the features of heads by angles, for each way in which heads are stored.

All turn the leading 2 * d/2 features of every head and pass the rest. Interleaved features are
returned with the even ones first: a product of a query and a key does not depend on the order that
both have. They have the same values and gradients; a TPU moves features in different ways.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from jalign.kernels.splash_layout import LANES

Turn = Callable[..., Array]
"""(x, (cos, sin), interleaved=): x [S, N, H, C], turned by angles [S, N, d/2]."""


def rotate(
    x_SNHC: Float[Array, "S N H C"], table: tuple[Array, Array], *, interleaved: bool = False
) -> Float[Array, "S N H C"]:
    """For arrays stored as they are."""
    cos, sin = (t[:, :, None] for t in table)
    half = cos.shape[-1]
    x = x_SNHC.astype(jnp.float32)
    if interleaved:
        turned, rest = jnp.split(x, (2 * half,), axis=-1)
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b, rest = jnp.split(x, (half, 2 * half), axis=-1)
    turned = jnp.concatenate((a * cos - b * sin, b * cos + a * sin, rest), axis=-1)
    return turned.astype(x_SNHC.dtype)


def rotate_in_one_pass(
    x_SNHC: Float[Array, "S N H C"], table: tuple[Array, Array], *, interleaved: bool = False
) -> Float[Array, "S N H C"]:
    """For arrays stored with tokens last (`jalign.kernels.splash_layout.tokens_last`).

    There a head's halves are whole registers, so that a TPU reads them in either order: one
    operation writes both, where `rotate` takes three or four (float32, each half, both). A CPU
    takes 2 to 8 times as long with it.
    """
    cos, sin = table
    d = 2 * cos.shape[-1]
    turned, rest = x_SNHC[..., :d], x_SNHC[..., d:]
    if interleaved:
        pairs = turned.reshape(*turned.shape[:-1], d // 2, 2)
        turned = pairs.swapaxes(-1, -2).reshape(turned.shape)
    turned = _turn(turned, cos, sin)
    return jnp.concatenate((turned, rest), axis=-1) if rest.shape[-1] else turned


@jax.custom_vjp
def _turn(x: Array, cos: Array, sin: Array) -> Array:
    """The first half of every head against the second."""
    cos, sin = (t[:, :, None, None] for t in (cos, sin))
    pairs = x.reshape(*x.shape[:-1], 2, -1)
    signs = jnp.array([[-1.0], [1.0]], jnp.float32)
    # Converted one by one: a float32 array that both products read would be stored.
    y = pairs.astype(jnp.float32) * cos + pairs[..., ::-1, :].astype(jnp.float32) * (signs * sin)
    return y.astype(x.dtype).reshape(x.shape)


def _turn_fwd(x: Array, cos: Array, sin: Array):
    return _turn(x, cos, sin), (cos, sin)


def _turn_bwd(table: tuple[Array, Array], g: Array):
    # Turned back; so both products are added in float32. The table depends on no parameter.
    cos, sin = table
    return _turn(g, cos, -sin), jnp.zeros_like(cos), jnp.zeros_like(sin)


_turn.defvjp(_turn_fwd, _turn_bwd)


def rotate_by_product(
    x_SNHC: Float[Array, "S N H C"], table: tuple[Array, Array], *, interleaved: bool = False
) -> Float[Array, "S N H C"]:
    """For arrays stored with heads before tokens (`jalign.kernels.splash_layout.heads_first`).

    There a head's halves are halves of registers, which a TPU moves in passes of their own, through
    arrays that take twice the memory; a product with a permutation moves them in its matrix unit.
    An infinite feature makes all of its head NaN.
    """
    cos, sin = table
    half, (s, n, heads, size) = cos.shape[-1], x_SNHC.shape
    # Two heads of 64 are one of 128, whose halves turn alike.
    together = 2 if 2 * size == LANES and heads % 2 == 0 else 1
    x = x_SNHC.reshape(s, n, -1, together * size).swapaxes(1, 2)
    turned, others = np.arange(2 * half), np.arange(2 * half, size)
    if interleaved:
        x = _moved(x, _for_each(together, np.concatenate((turned[::2], turned[1::2], others))))
    partners = _for_each(together, np.concatenate((np.roll(turned, half), others)))
    rest = (*cos.shape[:-1], len(others))
    same = jnp.concatenate((cos, cos, jnp.ones(rest)) * together, axis=-1)
    swapped = jnp.concatenate((-sin, sin, jnp.zeros(rest)) * together, axis=-1)
    y = _turn_by_product(partners, x, same[:, None], swapped[:, None])
    return y.swapaxes(1, 2).reshape(x_SNHC.shape)


def _for_each(heads: int, order: np.ndarray) -> tuple[int, ...]:
    """The order of the features of one head for all features of several."""
    return tuple(int(i) for h in range(heads) for i in h * len(order) + order)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _turn_by_product(partners: tuple[int, ...], x: Array, same: Array, swapped: Array) -> Array:
    other = _moved(x, partners)
    y = x.astype(jnp.float32) * same + other.astype(jnp.float32) * swapped
    return y.astype(x.dtype)


def _turn_by_product_fwd(partners: tuple[int, ...], x: Array, same: Array, swapped: Array):
    return _turn_by_product(partners, x, same, swapped), (same, swapped)


def _turn_by_product_bwd(partners: tuple[int, ...], table: tuple[Array, Array], g: Array):
    same, swapped = table
    back = _turn_by_product(partners, g, same, -swapped)
    return back, jnp.zeros_like(same), jnp.zeros_like(swapped)


_turn_by_product.defvjp(_turn_by_product_fwd, _turn_by_product_bwd)


def _moved(x: Array, order: tuple[int, ...]) -> Array:
    """x[..., order], exactly, by a product."""
    one_hot = np.eye(len(order))[:, list(order)]
    # A TPU would round float32 to 16 bits.
    return jnp.matmul(x, jnp.asarray(one_hot, x.dtype), precision="highest")
