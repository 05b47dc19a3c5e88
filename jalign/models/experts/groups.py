"""Tokens in the order of their experts, and back. Both directions and their gradients only gather.

Letters: n tokens, k experts per token, m = n * k pairs, E experts here, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


class Groups(NamedTuple):
    """Pairs of a token and one of its experts, sorted by expert.

    Attributes:
      order: which pair, token * k + choice, each row is.
      inverse: the row of each pair.
      sizes: rows of each expert; rows after those belong to experts that are not here.
      experts: the expert of each row, E for those.
    """

    order: Int[Array, " m"]
    inverse: Int[Array, " m"]
    sizes: Int[Array, " E"]
    experts: Int[Array, " m"]


def sort_by_expert(ids: Int[Array, "n k"], first: Array | int, count: int) -> Groups:
    """The pairs in the order of the experts first .. first + count - 1, the others last."""
    local = ids.ravel() - first
    local = jnp.where((local >= 0) & (local < count), local, count)
    # Stable: the rows of an expert keep the order of the tokens.
    order = jnp.argsort(local, stable=True)
    inverse = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)), unique_indices=True)
    sizes = (local[:, None] == jnp.arange(count)).sum(0, dtype=jnp.int32)
    return Groups(order, inverse, sizes, local[order])


@jax.custom_vjp
def dispatch(x: Float[Array, "n D"], groups: Groups) -> Float[Array, "m D"]:
    """Every token once for each of its experts, sorted."""
    return x[groups.order // (len(groups.order) // len(x))]


def _dispatched(x: Array, groups: Groups) -> tuple[Array, tuple[Groups, int]]:
    return dispatch(x, groups), (groups, len(x))


def _dispatch_gradient(saved: tuple[Groups, int], dy: Array) -> tuple[Array, None]:
    groups, n = saved
    dx = dy[groups.inverse].reshape(n, -1, dy.shape[-1])
    return dx.astype(jnp.float32).sum(1).astype(dy.dtype), None


dispatch.defvjp(_dispatched, _dispatch_gradient)


@jax.custom_vjp
def undo(y: Float[Array, "m D"], groups: Groups) -> Float[Array, "m D"]:
    """Sorted rows in the order of their tokens."""
    return y[groups.inverse]


undo.defvjp(
    lambda y, groups: (undo(y, groups), groups), lambda groups, dy: (dy[groups.order], None)
)


def combine(
    y: Float[Array, "m D"], weights: Float[Array, "n k"], groups: Groups, *, some: bool
) -> Float[Array, "n D"]:
    """The weighted sum over the experts of each token, in float32. Rows of experts that are not
    here count 0, if there are `some` such.
    """
    each = undo(y, groups).reshape(*weights.shape, -1).astype(jnp.float32) * weights[..., None]
    if some:
        here = groups.experts[groups.inverse].reshape(weights.shape) < len(groups.sizes)
        # Selected, not multiplied: what is in such rows may be no number.
        each = jnp.where(here[..., None], each, 0.0)
    return each.sum(1)
