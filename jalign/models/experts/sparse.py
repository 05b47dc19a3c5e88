"""The MLP of a layer with a mixture of experts: router, experts, and an expert that all share."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from jalign.models.experts.exchange import on_mesh
from jalign.models.experts.mlp import ExpertMLPs
from jalign.models.experts.router import Router
from jalign.models.experts.spec import Experts
from jalign.models.linear import Linear, split_key
from jalign.models.mlp import MLP


class SparseMLP(nnx.Module):
    """Parameters of all layers are stacked on a leading axis L, as in `jalign.models.mlp.MLP`."""

    def __init__(self, width: int, experts: Experts, *, activation: str, layers: int, **types):
        options = {"activation": activation, "layers": layers, **types}
        self.router = Router(
            width, experts, layers=layers, param_dtype=types["param_dtype"], rngs=types["rngs"]
        )
        self.experts = ExpertMLPs(width, experts, **options)
        shared = experts.shared_width
        self.shared = nnx.data(
            MLP(width, shared, gated=True, bias=False, **options) if shared else None
        )
        self.shared_gate = nnx.data(Linear(width, 1, layers=layers, **types) if shared else None)

    def __call__(
        self,
        x: Float[Array, "n D"],
        key: Array | None,
        replayed: Int[Array, "n k"] | None = None,
    ) -> tuple[Float[Array, "n D"], Float[Array, "n E"]]:
        """The output and the router's logits."""
        keys, logits = split_key(key, 3), self.router(x)
        ids, weights = self.router.select(logits, replayed)
        y = on_mesh(self.experts, x, ids, weights, keys[0])
        if self.shared is not None and self.shared_gate is not None:
            gate = jax.nn.sigmoid(self.shared_gate(x, keys[1]).astype(jnp.float32))
            y = y + gate.astype(x.dtype) * self.shared(x, keys[2])
        return y, logits
