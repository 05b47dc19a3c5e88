"""Linear layers, whose kernel may be quantized and may carry an adapter, and embedding tables."""

from __future__ import annotations

from types import EllipsisType
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from jalign.parallel.axes import BATCH_AXES, CONTEXT, TENSOR
from jalign.parallel.rules import constrain

# GPT-2's, and the default initializer_range of transformers.
INIT_STD = 0.02


class Kernel(Protocol):
    """A matrix [in, out], or [L, in, out] stacked over layers, that is stored in another form.

    Implemented by `jalign.models.quant.Quantized` and `jalign.rollout.unrolled.TransposedKernel`.
    """

    @property
    def ndim(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: EllipsisType, /) -> Array:
        """The dense matrix."""
        ...

    def matmul(self, x: Float[Array, "n i"], /) -> Float[Array, "n o"]:
        """x W in the dtype of x."""
        ...


class Adapter(Protocol):
    """A trainable addition to a linear layer, such as `jalign.models.adapters.lora.Lora`."""

    def __call__(self, x: Float[Array, "n i"], key: Array | None, /) -> Float[Array, "n o"]: ...


class Linear(nnx.Module):
    """x W (+ b) (+ lora(x)).

    Attributes:
      kernel: `nnx.Param` [in, out], or [L, in, out] while it is stacked over layers; or a `Kernel`.
      bias: `nnx.Param` [out] or [L, out], or None.
      lora: None, or an `Adapter` whose result is added.
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
        self.kernel: nnx.Param | Kernel = nnx.Param(kernel * jnp.asarray(INIT_STD, param_dtype))
        self.bias = nnx.data(nnx.Param(jnp.zeros((*stack, fan_out), param_dtype)) if bias else None)
        # Marked as data while it is None, so that an adapter can be attached later.
        self.lora: Adapter | None = nnx.data(None)
        self.dtype = dtype

    def __call__(self, x: Float[Array, "n i"], key: Array | None = None) -> Float[Array, "n o"]:
        # Always two axes: from [B, T, i] XLA:CPU makes transposing copies in the gradient of the
        # kernel.
        if isinstance(self.kernel, nnx.Param):
            y = x @ self.kernel[...].astype(self.dtype)
        else:
            y = self.kernel.matmul(x)
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
        table = constrain(self.weight[...].astype(self.dtype), TENSOR, None)
        return constrain(table[ids], BATCH_AXES, CONTEXT, None)


def linear_layers(model: nnx.Module) -> dict[str, Linear]:
    """Path -> linear layer of the decoder's stack, such as `layers.attn.q`.

    These are quantized and carry adapters, as experts do; the unembedding and routers are not.
    """
    return {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, Linear) and module.kernel.ndim == 3
    }


def split_key(key: Array | None, n: int) -> list[Array | None]:
    """n keys of one, or n times None."""
    return [None] * n if key is None else list(jax.random.split(key, n))
