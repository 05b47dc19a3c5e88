"""A decoder whose layers are separate arrays, for decoding on CPU.

Of parameters or a cache stacked over layers, XLA:CPU copies every layer's slice for every token: at
15M parameters and 32 rows that is 100 MB per step. Taken apart once, nothing is copied.
"""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx
from jax import Array

from jalign.models.block import Layer, Place
from jalign.models.cache import KeysValues, KVCache
from jalign.models.decoder import Decoder
from jalign.models.quant import dequantize


class Unrolled(Decoder):
    """The function of the decoder it is made from, for calls with a cache from `split_cache`.

    Args:
      model: the decoder.
      layers: its layers, from `layers_apart`.
    """

    def __init__(self, model: Decoder, layers: tuple[Layer, ...]):
        for name in ("embed", "positions", "final_norm", "lm_head", "value"):
            setattr(self, name, nnx.data(getattr(model, name)))
        for name in ("spec", "dtype", "remat", "attention", "unroll", "source"):
            setattr(self, name, getattr(model, name))
        self.layers = nnx.List(layers)

    def _run_layers(self, x: Array, place: Place, kv: tuple[KeysValues, ...], key, keep):
        written = []
        for layer, kind, one in zip(self.layers, self.spec.kinds, kv, strict=True):
            x, one = layer(x, place, kind, self.attention or "xla", one, 0, None)
            written.append(one)
        return x, tuple(written), None


def layers_apart(model: Decoder) -> tuple[Layer, ...]:
    """The layers one by one; what is quantised becomes ordinary parameters."""
    graphdef, stacked = nnx.split(dequantize(model).layers)
    return tuple(
        nnx.merge(graphdef, jax.tree.map(lambda a, i=i: a[i], stacked))
        for i in range(model.spec.depth)
    )


def split_cache(cache: KVCache) -> KVCache:
    """The cache as `Unrolled` takes it: one pair of arrays [1, B, ...] per layer."""
    k, v = cache.kv
    layers = tuple(KeysValues(k[i : i + 1], v[i : i + 1]) for i in range(len(k)))
    return dataclasses.replace(cache, kv=layers)
