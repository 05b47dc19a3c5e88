"""Tokens in the order of their experts, and back: two gathers, each the gradient of the other.

Letters: n tokens, k experts per token, m = n * k pairs, E experts here, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Bool, Float, Int

from jalign.kernels import devices


class Groups(NamedTuple):
    """Pairs of a token and one of its experts, sorted by expert.

    Attributes:
      order: which pair, token * k + choice, each row is.
      inverse: the row of each choice of each token.
      sizes: rows of each expert; rows after those belong to experts that are not here.
      experts: the expert of each row, E for those.
      here: which entries of `inverse` belong to experts that are here; None: all of them.
    """

    order: Int[Array, " m"]
    inverse: Int[Array, "k n"]
    sizes: Int[Array, " E"]
    experts: Int[Array, " m"]
    here: Bool[Array, "k n"] | None


def sort_by_expert(ids: Int[Array, "n k"], first: Array | int, count: int, *, some: bool) -> Groups:
    """The pairs in the order of the experts first .. first + count - 1, the others last; `some`:
    there may be others.
    """
    local = ids.ravel() - first
    local = jnp.where((local >= 0) & (local < count), local, count)
    # Stable: the rows of an expert keep the order of the tokens.
    order = jnp.argsort(local, stable=True)
    inverse = jnp.zeros_like(order).at[order].set(jnp.arange(len(order)), unique_indices=True)
    # Choices first: a sum over the first axis adds whole arrays.
    inverse = inverse.reshape(ids.shape).T
    sizes = (local[:, None] == jnp.arange(count)).sum(0, dtype=jnp.int32)
    here = inverse < sizes.sum() if some else None
    return Groups(order, inverse, sizes, local[order], here)


@jax.custom_vjp
def dispatch(x: Float[Array, "n D"], groups: Groups) -> Float[Array, "m D"]:
    """Every token once for each of its experts, sorted."""
    return x.at[groups.order // len(groups.inverse)].get(mode="promise_in_bounds")


@jax.custom_vjp
def combine(y: Float[Array, "m D"], groups: Groups) -> Float[Array, "n D"]:
    """The sum over the experts of each token that are here, in float32 and rounded once."""
    each = list(y.at[groups.inverse].get(mode="promise_in_bounds"))
    if groups.here is not None:
        # Selected, not multiplied: what is in other rows may be no number.
        each = [jnp.where(h[:, None], x, 0) for h, x in zip(groups.here, each, strict=True)]
    # One by one: a reduction over the axis takes XLA:TPU five times as long.
    total = sum(x.astype(jnp.float32) for x in each).astype(y.dtype)
    if devices.platform() != "tpu":
        return total
    # Else the layout that later products prefer would become that of all copies: 3 ms of copying.
    return with_layout_constraint(total, Layout(major_to_minor=(0, 1)))


dispatch.defvjp(
    lambda x, groups: (dispatch(x, groups), groups), lambda groups, dy: (combine(dy, groups), None)
)
combine.defvjp(
    lambda y, groups: (combine(y, groups), groups), lambda groups, dx: (dispatch(dx, groups), None)
)


@jax.custom_vjp
def in_order(weights: Float[Array, "n k"], groups: Groups) -> Float[Array, " m"]:
    """The weight of each row."""
    return weights.ravel()[groups.order]


in_order.defvjp(
    lambda weights, groups: (in_order(weights, groups), groups),
    lambda groups, d: (d[groups.inverse].T, None),
)
