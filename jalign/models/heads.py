"""The scalar head of reward models and critics; with several outputs, one per rated attribute."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float


def initial_kernel(key: Array, width: int, outputs: int = 1) -> Float[Array, "D A"]:
    """normal(0, 1 / sqrt(D + 1)), as in Stiennon et al. 2020, https://arxiv.org/abs/2009.01325."""
    return jax.random.normal(key, (width, outputs)) * (width + 1) ** -0.5


class ScalarHead(nnx.Module):
    """hidden -> one number, or one per attribute, in float32."""

    def __init__(
        self,
        width: int,
        outputs: int = 1,
        *,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        kernel = initial_kernel(rngs.params(), width, outputs)
        self.kernel = nnx.Param(kernel.astype(param_dtype))

    def __call__(self, hidden: Float[Array, "*P D"]) -> Float[Array, "*P"]:
        """The first output."""
        # A sum of products rather than a matrix product: TPUs would multiply in bfloat16.
        return jnp.sum(hidden.astype(jnp.float32) * self.kernel[..., 0].astype(jnp.float32), -1)

    def attributes(self, hidden: Float[Array, "*P D"]) -> Float[Array, "*P A"]:
        """Every output."""
        kernel = self.kernel[...].astype(jnp.float32)
        # HIGHEST, since TPUs multiply float32 in bfloat16 otherwise.
        return jnp.matmul(hidden.astype(jnp.float32), kernel, precision=jax.lax.Precision.HIGHEST)
