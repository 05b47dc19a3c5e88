"""RMSNorm (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467) and LayerNorm, in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from jalign.models.spec import Spec


class Norm(nnx.Module):
    """x / rms(x) * w over the last axis; `rms_plus_one` multiplies by 1 + w, `layer` removes the
    mean first and adds a bias, `layer_no_bias` removes the mean alone.
    """

    def __init__(self, spec: Spec, size: int, *, layers: int | None = None, param_dtype: DTypeLike):
        shape = (size,) if layers is None else (layers, size)
        start = jnp.zeros if spec.norm == "rms_plus_one" else jnp.ones
        self.weight = nnx.Param(start(shape, param_dtype))
        self.bias = nnx.data(
            nnx.Param(jnp.zeros(shape, param_dtype)) if spec.norm == "layer" else None
        )
        self.style = spec.norm
        self.eps = spec.norm_eps

    def __call__(self, x: Float[Array, "... F"]) -> Float[Array, "... F"]:
        y = x.astype(jnp.float32)
        weight = self.weight[...].astype(jnp.float32)
        if self.style in ("layer", "layer_no_bias"):
            y = y - jnp.mean(y, -1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), -1, keepdims=True) + self.eps)
        # transformers' Llama rounds before this product, its Gemma after it; here always after it.
        y = y * (1.0 + weight if self.style == "rms_plus_one" else weight)
        if self.bias is not None:
            y = y + self.bias[...].astype(jnp.float32)
        return y.astype(x.dtype)
