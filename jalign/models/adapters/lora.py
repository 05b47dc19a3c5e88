"""LoRA: a low-rank update beside a frozen kernel, y = x W + s x A B.

Hu et al. 2021. https://arxiv.org/abs/2106.09685; rank-stabilized scale: Kalajdzievski 2023.
https://arxiv.org/abs/2312.03732. A and B are stacked over layers like their kernel, so
one scan over layers slices all three.

Letters: L layers, r rank.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jalign.core import did_you_mean
from jalign.models.experts.linear import ExpertLinear, layer_matrices
from jalign.models.linear import Linear

EVERY_LAYER = r"(attn|delta|mlp)\..*"

Model = TypeVar("Model", bound=nnx.Module)


class Lora(nnx.Module):
    """x -> s (dropout(x) A) B, with A [L, in, r] and B [L, r, out]; for a matrix per expert
    A [L, E, in, r] and B [L, E, r, out].

    Both are kept in float32; the products are taken in the dtype of x.

    Attributes:
      a, b: `nnx.LoRAParam`; without the leading L inside the scan over layers.
      scale: s = alpha / r, or alpha / sqrt(r) when rank-stabilized.
      dropout: probability of zeroing an input feature; only applied when a key is given.
    """

    def __init__(self, a: Array, b: Array, *, alpha: float, dropout: float, rank_stabilized: bool):
        self.a = nnx.LoRAParam(a)
        self.b = nnx.LoRAParam(b)
        self.alpha = alpha
        self.dropout = dropout
        self.rank_stabilized = rank_stabilized

    @property
    def rank(self) -> int:
        return self.a[...].shape[-1]

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def __call__(
        self,
        x: Float[Array, "n i"],
        key: Array | None = None,
        product: Callable[[Array, Array], Array] = jnp.matmul,
    ) -> Float[Array, "n o"]:
        if key is not None and self.dropout > 0.0:
            keep = jax.random.bernoulli(key, 1.0 - self.dropout, x.shape)
            x = jnp.where(keep, x / (1.0 - self.dropout), 0.0).astype(x.dtype)
        # Stored in float32, since small updates vanish in bfloat16; cast for the products.
        a, b = self.a[...].astype(x.dtype), self.b[...].astype(x.dtype)
        # Never x (A B): the product of the factors is as large as the kernel. Scaled where it is
        # small; the gradient would scale all of dy.
        return product(product(x, a) * self.scale, b)

    def delta(self) -> Float[Array, "... i o"]:
        """s A B, what `merge` adds to the kernel; float32."""
        # TPUs would multiply in bfloat16, and the merged model would differ from the adapter.
        return self.scale * jnp.matmul(self.a[...], self.b[...], precision="highest")


def adapters(model: nnx.Module) -> dict[str, Lora]:
    """Path of the linear layer -> its adapter; empty when the model has none."""
    return {
        path: linear.lora
        for path, linear in layer_matrices(model).items()
        if isinstance(linear.lora, Lora)
    }


def add_lora(
    model: Model,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: str = EVERY_LAYER,
    rank_stabilized: bool = False,
    rngs: nnx.Rngs,
) -> Model:
    """A copy of `model` (arrays shared) with adapters that change nothing yet.

    A ~ U(-1/sqrt(in), 1/sqrt(in)), which is `peft`'s kaiming_uniform_(a=sqrt(5)); B = 0.

    Args:
      model: a decoder without adapters.
      rank: r, at least 1.
      alpha: numerator of the scale, > 0.
      dropout: in [0, 1).
      targets: regular expression that must match the trailing components of a layer's path:
        "q|v", "attn.q", "mlp[.].*", "experts[.].*".
      rank_stabilized: scale by alpha / sqrt(r) instead of alpha / r.
      rngs: the stream `params` is used.

    Raises:
      ValueError: a number is out of range, the model carries adapters already, or `targets`
        matches no linear layer.
    """
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"LoRA rank must be a whole number of at least 1, got {rank!r}")
    if not alpha > 0:
        raise ValueError(f"LoRA alpha must be positive, got {alpha!r}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"LoRA dropout must be in [0, 1), got {dropout!r}")
    if adapters(model):
        raise ValueError("the model carries LoRA adapters already; merge them first")
    model = nnx.clone(model)
    for linear in _select(layer_matrices(model), targets).values():
        *stack, fan_in, fan_out = linear.kernel.shape
        bound = 1.0 / math.sqrt(fan_in)
        a = jax.random.uniform(rngs.params(), (*stack, fan_in, rank), jnp.float32, -bound, bound)
        b = jnp.zeros((*stack, rank, fan_out), jnp.float32)
        linear.lora = Lora(a, b, alpha=alpha, dropout=dropout, rank_stabilized=rank_stabilized)
    return model


def without_dropout(model: Model) -> Model:
    """A copy of `model` (arrays shared) whose adapters drop nothing."""
    model = nnx.clone(model)
    for lora in adapters(model).values():
        lora.dropout = 0.0
    return model


def merge(model: Model) -> Model:
    """A copy of `model` without adapters, W + s A B in every kernel that had one.

    Added in float32, kept in the dtype of the kernel.

    Raises:
      ValueError: the model has no adapters.
    """
    if not adapters(model):
        raise ValueError("the model has no LoRA adapters to merge")
    model = nnx.clone(model)
    for path, lora in adapters(model).items():
        linear = layer_matrices(model)[path]
        kernel = linear.kernel[...]
        linear.kernel = nnx.Param((kernel.astype(jnp.float32) + lora.delta()).astype(kernel.dtype))
        linear.lora = nnx.data(None)
    return model


def trainable_filter(model: nnx.Module) -> nnx.filterlib.Filter:
    """The filter of trained parameters: all, or, with adapters, those and the scalar head."""
    if not adapters(model):
        return nnx.Param
    return nnx.Any(nnx.LoRAParam, lambda path, _: path[0] == "value")


def _select(
    linears: dict[str, Linear | ExpertLinear], targets: str
) -> dict[str, Linear | ExpertLinear]:
    try:
        pattern = re.compile(rf"(?:^|.*\.)(?:{targets})")
    except re.error as e:
        raise ValueError(f"targets={targets!r} is not a regular expression: {e}") from None
    selected = {path: linear for path, linear in linears.items() if pattern.fullmatch(path)}
    if not selected:
        near = did_you_mean(targets, {".".join(path.split(".")[-2:]) for path in linears})
        raise ValueError(f"targets={targets!r} matches no linear layer{near}")
    return selected
