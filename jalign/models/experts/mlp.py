"""The MLPs of all experts, over the tokens that the router sends to each.

No expert has a capacity, so no token is dropped: a token's output depends on that token alone.

Letters: n tokens, k experts per token, E experts, D width, F width inside an expert.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jalign.models.experts.groups import combine, dispatch, in_order, sort_by_expert
from jalign.models.experts.linear import ExpertLinear
from jalign.models.experts.spec import Experts
from jalign.models.linear import split_key
from jalign.models.mlp import ACTIVATION


class ExpertMLPs(nnx.Module):
    """sum over the experts e of a token of weight_e * down_e(act(gate_e x) * up_e x).

    Attributes:
      stored_split: the kernels are split over the axes that only store them (`fsdp`, `context`).
      frozen: the kernels are not trained (`jalign.models.experts.in_place`).
    """

    def __init__(self, width: int, experts: Experts, *, activation: str, layers: int, **types):
        linear = functools.partial(
            ExpertLinear, experts=experts.count, layers=layers, bias=experts.bias, **types
        )
        self.gate = linear(width, experts.width)
        self.up = linear(width, experts.width)
        self.down = linear(experts.width, width)
        self.activation = activation
        self.experts = experts
        self.stored_split = True
        self.frozen = False

    def __call__(
        self,
        x: Float[Array, "n D"],
        ids: Int[Array, "n k"],
        weights: Float[Array, "n k"],
        key: Array | None,
        first: Array | int = 0,
    ) -> Float[Array, "n D"]:
        """The sum over the experts that this module holds, of which `first` is the first."""
        keys, count = split_key(key, 3), self.gate.kernel.shape[-3]
        groups = sort_by_expert(ids, first, count, some=count < self.experts.count)
        # Dispatched twice, so that a token's gradient is one sum over its experts' gates and ups.
        gate = self.gate(dispatch(x, groups), groups, keys[0]).astype(jnp.float32)
        up = self.up(dispatch(x, groups), groups, keys[1]).astype(jnp.float32)
        row_weights = in_order(weights, groups)
        if groups.here is not None:
            # Products of other rows, and their gradients, are unspecified.
            present = groups.experts < count
            gate, up = (jnp.where(present[:, None], x, 0.0) for x in (gate, up))
            row_weights = jnp.where(present, row_weights, 0.0)
        # Weighted before the product: the gradient of a weight needs no output of an expert.
        h = (self.activated(gate, up) * row_weights[:, None]).astype(x.dtype)
        return combine(self.down(h, groups, keys[2], row_weights), groups)

    def activated(self, gate: Float[Array, "m F"], up: Float[Array, "m F"]) -> Float[Array, "m F"]:
        limit = self.experts.swiglu_limit
        if limit is None:
            return ACTIVATION[self.activation](gate) * up
        gate, up = jnp.minimum(gate, limit), jnp.clip(up, -limit, limit)
        return (up + 1) * gate * jax.nn.sigmoid(self.experts.swiglu_alpha * gate)
