"""The matrices: a linear layer that can carry a LoRA, and an embedding table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from jalign.parallel.rules import BATCH, constrain

if TYPE_CHECKING:
    from jalign.models.lora import Lora
    from jalign.models.quant import Quantized

INIT_STD = 0.02


class Linear(nnx.Module):
    """x W (+ b) (+ lora(x)).

    Attributes:
      kernel: `nnx.Param` [in, out], or [L, in, out] while it is stacked over layers; or one in few
        bits (`jalign.models.quant.Quantized`).
      bias: `nnx.Param` [out] or [L, out], or None.
      lora: None, or a module called as lora(x, key) whose result is added (`jalign.models.lora`).
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        *,
        layers: int | None = None,
        bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        stack = () if layers is None else (layers,)
        kernel = jax.random.normal(rngs.params(), (*stack, fan_in, fan_out), param_dtype)
        self.kernel: nnx.Param | Quantized = nnx.Param(kernel * jnp.asarray(INIT_STD, param_dtype))
        self.bias = nnx.data(nnx.Param(jnp.zeros((*stack, fan_out), param_dtype)) if bias else None)
        self.lora: Lora | None = nnx.data(None)
        self.dtype = dtype

    def __call__(self, x: Float[Array, "n i"], key: Array | None = None) -> Float[Array, "n o"]:
        # Always two axes: from [B, T, i] XLA:CPU makes transposing copies in the gradient of the
        # kernel.
        if isinstance(self.kernel, nnx.Param):
            y = x @ self.kernel[...].astype(self.dtype)
        else:
            y = self.kernel.times(x)
        if self.bias is not None:
            y = y + self.bias[...].astype(self.dtype)
        if self.lora is not None:
            y = y + self.lora(x, key)
        return y


class Embed(nnx.Module):
    """A table [V, D] of vectors."""

    def __init__(
        self, size: int, width: int, *, dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs
    ):
        table = jax.random.normal(rngs.params(), (size, width), param_dtype)
        self.weight = nnx.Param(table * jnp.asarray(INIT_STD, param_dtype))
        self.dtype = dtype

    def __call__(self, ids: Int[Array, "S N"]) -> Float[Array, "S N D"]:
        # Rows may stay split over `tensor` (each device looks up its own and the results are
        # added), but a table whose columns are split like the batch would make the compiler
        # replicate the activations.
        table = constrain(self.weight[...].astype(self.dtype), "tensor", None)
        return constrain(table[ids], BATCH[0], "context", None)
