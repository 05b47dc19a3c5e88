"""Frozen matrices of a model in 4 or 8 bits: `jalign.kernels.nf4` stores them small, as QLoRA does,
`jalign.kernels.w8a8` also multiplies in 8 bits.
"""

from __future__ import annotations

from types import EllipsisType, ModuleType
from typing import TypeVar

import jax
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from jalign.kernels import nf4, w8a8
from jalign.models.experts.linear import expert_layers, layer_matrices

Model = TypeVar("Model", bound=nnx.Module)
KINDS = (*nf4.KINDS, *w8a8.CODES)


def _module_of(arrays: dict[str, Array]) -> ModuleType:
    """What encoded the arrays."""
    return w8a8 if "channel_scales" in arrays else nf4


def encode(w: Array, kind: str) -> dict[str, Array]:
    """Quantize matrices [..., i, o].

    Raises:
      ValueError: for an unknown kind, or a matrix that the kind does not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"quantization {kind!r} is unknown; there is: {', '.join(KINDS)}")
    return (w8a8 if kind in w8a8.CODES else nf4).encode(w, kind)


class Quantized(nnx.Module):
    """The kernel of a `Linear` in 4 or 8 bits; `kernel[...]` is the dense matrix.

    Attributes:
      parts: codes and scales, `nnx.Variable`s, so that no filter for `nnx.Param` trains them.
      dtype: of the dense matrix.
    """

    # The attribute is part of parameter paths (`layers.attn.q.kernel.parts.codes`), which sharding
    # rules and fingerprints of saved runs name.
    def __init__(self, arrays: dict[str, Array], dtype: DTypeLike):
        self.parts = nnx.data({name: nnx.Variable(x) for name, x in arrays.items()})
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return self.parts["codes"].ndim

    @property
    def shape(self) -> tuple[int, ...]:
        codes = self.parts["codes"]
        *stack, rows, outputs = codes.shape
        inputs_per_row = 2 if codes.dtype == "uint8" else 1
        return (*stack, rows * inputs_per_row, outputs)

    def __getitem__(self, index: EllipsisType) -> Array:
        del index
        arrays = self._arrays()
        return _module_of(arrays).decode(arrays, self.dtype)

    def matmul(self, x: Array) -> Array:
        """x W."""
        arrays = self._arrays()
        return _module_of(arrays).quantized_matmul(x, arrays)

    def _arrays(self) -> dict[str, Array]:
        return {name: x[...] for name, x in self.parts.items()}


def quantize(model: Model, kind: str) -> Model:
    """A copy of `model` with the matrices of its layers in a kind of `KINDS`.

    Embeddings, norms, unembedding and adapters are shared with `model`, not quantized.

    Raises:
      ValueError: `kind` is unknown or has no products of experts, or the matrices are quantized
        already.
    """
    model = nnx.clone(model)
    quantize_in_place(model, kind)
    return model


def quantize_in_place(model: nnx.Module, kind: str) -> None:
    """As `quantize`, but in place.

    Where nothing else refers to its matrices, only one of them at a time is in memory twice.
    """
    if kind in w8a8.CODES and expert_layers(model):
        raise ValueError(
            f"{kind} has no product of experts in 8 bits: use {' or '.join(nf4.KINDS)}, which "
            "store them small"
        )
    for path, linear in layer_matrices(model).items():
        if isinstance(linear.kernel, Quantized):
            raise ValueError(f"{path} is quantized already")
        kernel = linear.kernel[...]
        # Op by op every intermediate of encode would be a float32 array as large as the matrix.
        arrays = jax.jit(encode, static_argnums=1)(kernel, kind)
        linear.kernel = nnx.data(Quantized(arrays, kernel.dtype))


def dequantize(model: Model) -> Model:
    """A copy of `model` with dense parameters for its quantized matrices; the rest is shared."""
    model = nnx.clone(model)
    for linear in layer_matrices(model).values():
        if isinstance(linear.kernel, Quantized):
            linear.kernel = nnx.Param(linear.kernel[...])
    return model
