"""Slices of parameters that are stacked over layers of several kinds.

Most parts of a layer are stacked over all layers; `attn` and `delta` only over the layers that have
them, so that no layer holds parameters of another kind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from flax import nnx

from jalign.models.spec import Spec


def stack_index(spec: Spec, part: str, layer: int) -> int:
    """Where a layer's parameters of a part lie in its stack: the number of layers before it that
    have the part; for a layer that lacks it that of another one.
    """
    having = spec.layers_of(part)
    before = sum(i < layer for i in having)
    return min(before, len(having) - 1)


def cache_indices(spec: Spec) -> list[int]:
    """Where each layer's keys and values, or its state, lie in the cache; 0 for the first layer."""
    return [
        stack_index(spec, "delta" if kind.delta else "attn", i) for i, kind in enumerate(spec.kinds)
    ]


def of_layer(
    spec: Spec, stacked: Any, layer: int, *, start: int = 0, offset: jax.Array | int = 0
) -> Any:
    """A layer's slice of a layer state, stacked from the layer `start` on. `offset` is added to the
    index: a traced 0 keeps the compiler from slicing before a loop, all layers at once.
    """

    def at(part: str, a: jax.Array) -> jax.Array:
        index = stack_index(spec, part, layer) - stack_index(spec, part, start)
        index = min(index, len(a) - 1) + offset
        return jax.lax.dynamic_index_in_dim(a, index, keepdims=False)

    return _by_part(at, stacked)


def by_period(spec: Spec, stacked: Any, periods: int) -> Any:
    """Axes [periods, layers of a period] in the place of that of layers, without the rest."""

    def split(part: str, a: jax.Array) -> jax.Array:
        count = sum(i < spec.period for i in spec.layers_of(part))
        return a[: periods * count].reshape(periods, count, *a.shape[1:])

    return _by_part(split, stacked)


def after(spec: Spec, stacked: Any, start: int) -> Any:
    """From the layer `start` on."""
    return _by_part(lambda part, a: a[stack_index(spec, part, start) :], stacked)


def first(spec: Spec, stacked: Any, depth: int) -> Any:
    """The first `depth` layers."""
    return _by_part(lambda part, a: a[: sum(i < depth for i in spec.layers_of(part))], stacked)


def _by_part(change: Callable[[str, jax.Array], jax.Array], stacked: Any) -> Any:
    if not isinstance(stacked, nnx.State):
        return jax.tree.map(partial(change, ""), stacked)
    return type(stacked)({p: jax.tree.map(partial(change, p), x) for p, x in stacked.items()})
