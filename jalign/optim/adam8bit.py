"""Optimizer moments in 8 bits (`jalign.kernels.blockwise8bit`) instead of 32."""

from __future__ import annotations

from typing import Any

import jax
import optax

from jalign.kernels.blockwise8bit import Quantized8bit, blocks, decode, encode

_SIGNED = {"mu", "trace"}  # as optax calls first moments and momentum
_NEVER_NEGATIVE = {"nu"}


def quantize_moments(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` with moments stored as `Quantized8bit`: 2.06 bytes per parameter of Adam, not 8.

    The step is computed in float32 and the moments are rounded afterwards, so that rounding first
    affects the next step. Arrays without `blockwise8bit.blocks` stay float32.
    """

    def init(params: Any) -> Any:
        return _coded(inner.init(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(updates, _decoded(state), params)
        return updates, _coded(state)

    return optax.GradientTransformation(init, update)


def _coded(state: Any) -> Any:
    def one(path: tuple, x: Any) -> Any:
        # optax's states are named tuples: only their field names tell moments from other arrays.
        names = {key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)}
        moment = names & (_SIGNED | _NEVER_NEGATIVE)
        if not moment or blocks(x.shape) is None:
            return x
        return encode(x, signed=bool(moment & _SIGNED))

    return jax.tree_util.tree_map_with_path(one, state)


def _decoded(state: Any) -> Any:
    def is_coded(x: Any) -> bool:
        return isinstance(x, Quantized8bit)

    return jax.tree.map(lambda x: decode(x) if is_coded(x) else x, state, is_leaf=is_coded)
