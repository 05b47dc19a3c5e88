"""The dense MLP of a layer, and activations."""

from __future__ import annotations

import functools

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from jalign.models.linear import Linear, split_key

ACTIVATION = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


class MLP(nnx.Module):
    """down(act(gate x) * up x), or down(act(up x)) if it is not gated. Letters: D width, F width
    inside.
    """

    def __init__(
        self, width: int, mlp_width: int, *, activation: str, gated: bool, bias: bool, **types
    ):
        linear = functools.partial(Linear, bias=bias, **types)
        self.gate = nnx.data(linear(width, mlp_width) if gated else None)
        self.up = linear(width, mlp_width)
        self.down = linear(mlp_width, width)
        self.activation = activation

    def __call__(self, x: Float[Array, "n D"], key: Array | None) -> Float[Array, "n D"]:
        act = ACTIVATION[self.activation]
        keys = split_key(key, 3)
        if self.gate is None:
            return self.down(act(self.up(x, keys[1])), keys[2])
        return self.down(act(self.gate(x, keys[0])) * self.up(x, keys[1]), keys[2])
