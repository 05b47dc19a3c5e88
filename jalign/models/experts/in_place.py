"""Matrices of experts that are read where they lie: in the stack of all layers.

A scan over layers hands each layer its slice of the parameters. A dense product reads a slice from
the stack, but for a kernel, or a loop inside the layer, XLA copies it first: of Qwen3 30B-A3B
1.2 GB in every pass of a layer, also in that of a single token. So grouped products take the stack
and the layer's number, if the matrices are not trained: a gradient of the stack would be as large
as the stack, in every layer.
"""

from __future__ import annotations

from types import EllipsisType

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jalign.kernels import devices
from jalign.kernels.grouped import grouped_matmul_of_layer
from jalign.models.experts.linear import ExpertLinear
from jalign.models.experts.mlp import ExpertMLPs
from jalign.parallel.axes import STORE_AXES
from jalign.parallel.rules import ways

PLATFORMS = ("tpu", "cuda", "rocm")
"""Where products read a stack."""


class StackedKernel(nnx.Module):
    """Replaces the kernel of one layer's experts: a matrix [E, in, out] of a stack.

    Attributes:
      stack: `nnx.Param` [L, E, in, out].
      layer: `nnx.Variable`, the layer's number.
    """

    def __init__(self, stack: Float[Array, "L E i o"], layer: Array | int):
        self.stack, self.layer = nnx.Param(stack), nnx.Variable(layer)

    @property
    def ndim(self) -> int:
        return self.stack.ndim - 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stack.shape[1:]

    def __getitem__(self, index: EllipsisType) -> Array:
        return self.stack[...][self.layer[...]]

    def grouped_matmul(
        self, x: Float[Array, "m i"], sizes: Int[Array, " E"]
    ) -> Float[Array, "m o"]:
        """x W_e for the expert e of each row."""
        return grouped_matmul_of_layer(x, self.stack[...], self.layer[...], sizes)


def set_frozen(model: nnx.Module) -> None:
    """Declare that the experts' matrices of a model are not trained."""
    for _, module in nnx.iter_modules(model):
        if isinstance(module, ExpertMLPs):
            module.frozen = True


def stacks(layers: nnx.Module) -> dict[str, Array]:
    """The matrices of all layers' experts that each layer should read in place, by their name."""
    for _, module in nnx.iter_modules(layers):
        if isinstance(module, ExpertMLPs) and _readable(module):
            return {name: linear.kernel[...] for name, linear in _matrices(module).items()}
    return {}


def with_stacks(layer: nnx.Module, stacks: dict[str, Array], number: Array | int) -> None:
    """Let a layer read its matrices from the stacks."""
    for _, module in nnx.iter_modules(layer):
        if stacks and isinstance(module, ExpertMLPs):
            for name, linear in _matrices(module).items():
                linear.kernel = nnx.data(StackedKernel(stacks[name], number))


def _matrices(experts: ExpertMLPs) -> dict[str, ExpertLinear]:
    return {"gate": experts.gate, "up": experts.up, "down": experts.down}


def _readable(experts: ExpertMLPs) -> bool:
    """Whether they are frozen, and lie on the device as the products want them."""
    split = experts.stored_split and ways(*STORE_AXES) > 1
    if split or not experts.frozen or devices.platform() not in PLATFORMS:
        return False
    return all(
        isinstance(linear.kernel, nnx.Param)
        and linear.kernel.dtype == linear.dtype
        and jax.typeof(linear.kernel[...]).memory_space == jax.memory.Space.Device
        for linear in _matrices(experts).values()
    )
