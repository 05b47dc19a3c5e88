"""QLoRA: the frozen matrices of a model in 4 or 8 bits (`jalign.kernels.quantized`)."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
from flax import nnx
from jax import Array

from jalign.kernels.quantized import Codes, decode, encode, product
from jalign.models.lora import sites

Model = TypeVar("Model", bound=nnx.Module)


class Quantized(nnx.Module):
    """Stands where a kernel's `nnx.Param` stood and reads like it: `kernel[...]` is the matrix.

    Attributes:
      parts: the codes, `nnx.Variable`s: nothing that training changes.
      dtype: of the matrix that is read.
    """

    def __init__(self, parts: Codes, dtype: Any):
        self.parts = nnx.data({name: nnx.Variable(x) for name, x in parts.items()})
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return self.parts["codes"].ndim

    @property
    def shape(self) -> tuple[int, ...]:
        codes = self.parts["codes"]
        *stack, rows, outputs = codes.shape
        packed = 1 if codes.dtype == "int8" else 2
        return (*stack, rows * packed, outputs)

    def __getitem__(self, _: Any) -> Array:
        return decode(self._codes(), self.dtype)

    def times(self, x: Array) -> Array:
        """x W."""
        return product(x, self._codes())

    def _codes(self) -> Codes:
        return {name: x[...] for name, x in self.parts.items()}


def quantize(model: Model, kind: str) -> Model:
    """A copy of `model` whose layers' matrices are nf4 or int8; embeddings, norms, head and
    adapters (arrays shared) stay.

    Raises:
      ValueError: for an unknown kind, or a model whose matrices are quantised already.
    """
    model = nnx.clone(model)
    quantize_in_place(model, kind)
    return model


def quantize_in_place(model: nnx.Module, kind: str) -> None:
    """`quantize` of this very model: where nobody else holds its matrices, one at a time is in
    memory twice.
    """
    for path, linear in sites(model).items():
        if isinstance(linear.kernel, Quantized):
            raise ValueError(f"{path} is quantised already")
        kernel = linear.kernel[...]
        parts = jax.jit(encode, static_argnums=1)(kernel, kind)
        linear.kernel = nnx.data(Quantized(parts, kernel.dtype))


def dequantize(model: Model) -> Model:
    """A copy of `model` whose matrices are ordinary parameters again (arrays shared where they
    were): those that the codes stand for.
    """
    model = nnx.clone(model)
    for linear in sites(model).values():
        if isinstance(linear.kernel, Quantized):
            linear.kernel = nnx.Param(linear.kernel[...])
    return model
