"""The router: which experts a token uses, and how much of each. In float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from jalign.models.experts.spec import Experts
from jalign.models.linear import INIT_STD


def selected(logits: Float[Array, "*n E"], top_k: int) -> Int[Array, "*n k"]:
    """The experts that these logits select, the most probable first."""
    # Of the probabilities, as transformers: two logits may round to one probability.
    return jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top_k)[1]


class Router(nnx.Module):
    """Logits x W (+ b) of E experts.

    transformers rounds them to the type of the model first. Here the product is float32 in every
    type: a rounded logit may exchange two experts.

    Attributes:
      kernel: `nnx.Param` [D, E], or [L, D, E] while it is stacked over layers; it carries no
        adapter and is not quantized.
      bias: `nnx.Param` [E] or [L, E], or None.
    """

    def __init__(
        self,
        width: int,
        experts: Experts,
        *,
        layers: int,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        shape = (layers, width, experts.count)
        kernel = jax.random.normal(rngs.params(), shape, param_dtype)
        self.kernel = nnx.Param(kernel * jnp.asarray(INIT_STD, param_dtype))
        bias = nnx.Param(jnp.zeros((layers, experts.count), param_dtype)) if experts.bias else None
        self.bias = nnx.data(bias)
        self.experts = experts

    def __call__(self, x: Float[Array, "n D"]) -> Float[Array, "n E"]:
        kernel = self.kernel[...].astype(jnp.float32)
        # TPUs would multiply in bfloat16.
        logits = jnp.matmul(x.astype(jnp.float32), kernel, precision="highest")
        return logits if self.bias is None else logits + self.bias[...].astype(jnp.float32)

    def select(
        self, logits: Float[Array, "n E"], replayed: Int[Array, "n k"] | None = None
    ) -> tuple[Int[Array, "n k"], Float[Array, "n k"]]:
        """The experts of each token and their weights, which are those of the router also for
        `replayed` experts; -1 there stands for the router's own.
        """
        p = jax.nn.softmax(logits, axis=-1)
        ids = selected(logits, self.experts.top_k)
        if replayed is not None:
            ids = jnp.where(replayed < 0, ids, replayed)
        weights = jnp.take_along_axis(p, ids, axis=-1)
        if self.experts.normalize:
            weights = weights / weights.sum(-1, keepdims=True)
        return ids, weights
