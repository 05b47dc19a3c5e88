"""A matrix per expert, each used by the rows that the router sends there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from jalign.kernels.grouped import grouped_matmul
from jalign.models.experts.groups import Groups
from jalign.models.linear import INIT_STD, Adapter, Kernel, Linear, linear_layers


class ExpertLinear(nnx.Module):
    """x W_e (+ b_e) (+ lora_e(x)) for the expert e of each row.

    Attributes:
      kernel: `nnx.Param` [E, in, out], or [L, E, in, out] while it is stacked over layers; or a
        `Kernel`, which is decoded for each use unless it has a `grouped_matmul` of its own.
      bias: `nnx.Param` [E, out] or [L, E, out], or None.
      lora: None, or an adapter with factors per expert.
    """

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        *,
        experts: int,
        layers: int,
        bias: bool = False,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        stack = (layers, experts)
        kernel = jax.random.normal(rngs.params(), (*stack, fan_in, fan_out), param_dtype)
        self.kernel: nnx.Param | Kernel = nnx.Param(kernel * jnp.asarray(INIT_STD, param_dtype))
        self.bias = nnx.data(nnx.Param(jnp.zeros((*stack, fan_out), param_dtype)) if bias else None)
        self.lora: Adapter | None = nnx.data(None)
        self.dtype = dtype

    def __call__(
        self,
        x: Float[Array, "m i"],
        groups: Groups,
        key: Array | None,
        weights: Float[Array, " m"] | None = None,
    ) -> Float[Array, "m o"]:
        """`weights`, by which x is multiplied already, multiply the biases."""
        if hasattr(self.kernel, "grouped_matmul"):
            y = self.kernel.grouped_matmul(x, groups.sizes)
        else:
            y = grouped_matmul(x, self.kernel[...].astype(self.dtype), groups.sizes)
        if self.bias is not None:
            # Rows of other experts read the last bias; `combine` leaves them out.
            bias = self.bias[...].astype(self.dtype)[groups.experts]
            y = y + (bias if weights is None else (bias * weights[:, None]).astype(self.dtype))
        if self.lora is not None:
            y = y + self.lora(x, key, lambda x, w: grouped_matmul(x, w, groups.sizes))
        return y


def expert_layers(model: nnx.Module) -> dict[str, ExpertLinear]:
    """Path -> matrices of the experts, such as `layers.mlp.experts.gate`."""
    return {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, ExpertLinear)
    }


def layer_matrices(model: nnx.Module) -> dict[str, Linear | ExpertLinear]:
    """Path -> what may be quantized and carry an adapter: linear layers and experts' matrices."""
    return {**linear_layers(model), **expert_layers(model)}
