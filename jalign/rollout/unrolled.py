"""A decoder for decoding whose layers, or whose cache alone, are separate arrays.

If parameters or a cache are stacked over layers, XLA:CPU copies every layer's slice for every
token: 100 MB per step at 15M parameters and 32 rows. Layers that are unstacked once are not copied.

XLA:TPU reads a slice of parameters in their stack, but it copies a layer's keys and values, too: in
31 of the 64 s in which eight v5p sample 512 responses of Qwen3 30B-A3B, by the compiler's cycles
(`jalign/plan/README.md`). So there the cache alone is one array for each layer.

On CPU a product of a few rows with a large matrix is also faster transposed: W^T x^T takes 0.75 to
0.85 of the time of x W from 4 rows on, but 1.3 times as long for one row.
"""

from __future__ import annotations

import dataclasses
from types import EllipsisType

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from jalign.models import invariant, stacks
from jalign.models.block import AttentionInputs, Layer
from jalign.models.cache import KeysValues, KVCache, Memory
from jalign.models.decoder import Decoder
from jalign.models.delta.net import DeltaState
from jalign.models.experts import in_place
from jalign.models.linear import linear_layers
from jalign.models.quant import dequantize
from jalign.models.spec import LayerType, Spec
from jalign.parallel.memory import to_device

TRANSPOSE_FROM_ROWS = 4  # rows


class Unrolled(Decoder):
    """The same function as its decoder, for calls with a cache from `split_cache`.

    Args:
      model: the decoder.
      layers: its layers, from `unstack_layers`; None: they stay stacked.
    """

    def __init__(self, model: Decoder, layers: tuple[Layer, ...] | None):
        for name in ("embed", "positions", "final_norm", "lm_head", "value"):
            setattr(self, name, nnx.data(getattr(model, name)))
        for name in ("spec", "dtype", "remat", "attention", "unroll", "source", "replaced"):
            setattr(self, name, getattr(model, name))
        self.batch_invariant = model.batch_invariant
        self.stacked = layers is None
        self.layers = model.layers if layers is None else nnx.List(layers)

    def _run_layers(
        self, x: Array, inputs: AttentionInputs, kv: tuple[KeysValues | Memory, ...], key, keep
    ):
        written, seen = [], []
        run = invariant.run_layer if self.batch_invariant else Layer.__call__
        for i, (kind, one) in enumerate(zip(self.spec.kinds, kv, strict=True)):
            layer, x = self._layer_from_stack(i, x) if self.stacked else (self.layers[i], x)
            x, one, logits = run(layer, x, inputs, kind, self.attention or "xla", one, 0, None)
            written.append(one)
            seen.append(logits)
        return x, tuple(written), jnp.stack(seen) if keep else None

    def _layer_from_stack(self, i: int, x: Array) -> tuple[Layer, Array]:
        graphdef, state = nnx.split(self.layers)
        # Bound to x, or else the slices of all layers would be made once, before the loop over
        # tokens: a copy of the model.
        zero, x = jax.lax.optimization_barrier((jnp.int32(0), x))
        params = to_device(stacks.of_layer(self.spec, state, i, offset=zero))
        layer = nnx.merge(graphdef, params)
        in_place.with_stacks(layer, in_place.stacks(self.layers), i + zero)
        return layer, x


class TransposedKernel(nnx.Module):
    """Replaces a kernel's `nnx.Param`: the same matrix, outputs first.

    Attributes:
      weight: `nnx.Param` [out, in], or [L, out, in] while it is stacked over layers.
    """

    def __init__(self, kernel: Array):
        self.weight = nnx.Param(kernel.swapaxes(-1, -2))

    @property
    def ndim(self) -> int:
        return self.weight.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        *stack, outputs, inputs = self.weight.shape
        return (*stack, inputs, outputs)

    def __getitem__(self, index: EllipsisType) -> Array:
        return self.weight[index].swapaxes(-1, -2)

    def matmul(self, x: Array) -> Array:
        """x W."""
        return matmul_transposed(self.weight[...].astype(x.dtype), x).astype(x.dtype)


def matmul_transposed(weight: Float[Array, "o i"], x: Float[Array, "n i"]) -> Float[Array, "n o"]:
    """x weight^T in float32, taken as weight x^T: a barrier stops the compiler undoing it."""
    product = jnp.matmul(weight, x.T, preferred_element_type=jnp.float32)
    return jax.lax.optimization_barrier(product).T


def unstack_layers(model: Decoder, *, transposed: bool) -> tuple[Layer, ...]:
    """The layers one by one, with `TransposedKernel` matrices or plain ones; quantized matrices
    become ordinary parameters.
    """
    model = dequantize(model)
    if transposed:
        for linear in linear_layers(model).values():
            linear.kernel = nnx.data(TransposedKernel(linear.kernel[...]))
    graphdef, stacked = nnx.split(model.layers)
    return tuple(
        _with_own_parts(nnx.merge(graphdef, stacks.of_layer(model.spec, stacked, i)), kind)
        for i, kind in enumerate(model.spec.kinds)
    )


def _with_own_parts(layer: Layer, kind: LayerType) -> Layer:
    if layer.spec.delta is not None:
        setattr(layer, "attn" if kind.delta else "delta", nnx.data(None))
    return layer


def split_cache(cache: KVCache, spec: Spec) -> KVCache:
    """The cache for `Unrolled`: arrays [1, B, ...] per layer."""

    def at(x: KeysValues | DeltaState, i: int) -> KeysValues | DeltaState:
        return jax.tree.map(lambda a: a[i : i + 1], x)

    kv, indices = cache.kv, enumerate(stacks.cache_indices(spec))
    if spec.delta is None:
        layers = tuple(at(kv, i) for _, i in indices)
    else:
        layers = tuple(
            Memory(None, at(kv.delta, i))
            if spec.kinds[layer].delta
            else Memory(at(kv.attn, i), None)
            for layer, i in indices
        )
    return dataclasses.replace(cache, kv=layers)
