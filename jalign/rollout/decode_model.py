"""A model that goes on with rows of tokens, one token at a time.

Letters: B prompts, K responses per prompt, n rows, P prompt tokens, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jaxtyping import Array, Float

from jalign.kernels import devices
from jalign.models.block import Layer
from jalign.models.cache import KVCache
from jalign.models.decoder import Decoder
from jalign.rollout.unrolled import (
    TRANSPOSE_FROM_ROWS,
    Unrolled,
    matmul_transposed,
    split_cache,
    unstack_layers,
)


class DecodeModel(NamedTuple):
    """A model in the middle of its rows; `head` and `vocab_axis` as in `Ready`."""

    model: Any
    head: Array
    vocab_axis: int

    def logits(self, hidden: Float[Array, "n D"]) -> Float[Array, "n V"]:
        spec = self.model.spec
        if self.vocab_axis == 0:
            x = matmul_transposed(self.head, hidden)
        else:
            x = jnp.matmul(hidden, self.head, preferred_element_type=jnp.float32)
        x = x * spec.logit_scale
        if spec.logit_softcap is None:
            return x
        return spec.logit_softcap * jnp.tanh(x / spec.logit_softcap)


@struct.dataclass
class Ready:
    """A model's weights as sampling reads them best, made by `ready` once for many calls.

    Attributes:
      state: the weights.
      head: the unembedding, [D, V] or [V, D] where products are turned
        (`jalign.rollout.unrolled`). Not emb.T: of a single row it takes 4x the time.
      layers: on CPU the layers taken apart, else None.
      graphdef: what `state` belongs to.
      vocab_axis: which axis of `head` is the vocabulary.
    """

    state: nnx.State
    head: Any  # an array, or its shape where sampling is planned
    layers: tuple[Layer, ...] | None
    graphdef: nnx.GraphDef[Decoder] = struct.field(pytree_node=False)
    vocab_axis: int = struct.field(pytree_node=False)

    def model(self) -> Decoder:
        return nnx.merge(self.graphdef, self.state)


Model = Decoder | tuple[nnx.GraphDef[Decoder], nnx.State] | Ready
"""What can be sampled from: a decoder, its `nnx.split`, or a policy that is `ready`."""


def ready(model: Model, rows: int) -> Ready:
    """The model for any number of calls that sample `rows` rows (or about as many) from it."""
    if isinstance(model, Ready):
        return model
    graphdef, state = model if isinstance(model, tuple) else nnx.split(model)
    turned = devices.platform() == "cpu" and rows >= TRANSPOSE_FROM_ROWS
    head, layers = prepare(graphdef, turned, state)
    return Ready(state, head, layers, graphdef=graphdef, vocab_axis=0 if turned else 1)


@partial(jax.jit, static_argnums=(0, 1))
def prepare(
    graphdef: nnx.GraphDef, turned: bool, state: nnx.State
) -> tuple[Array, tuple[Layer, ...] | None]:
    """`head` and `layers` of `Ready`. A program of its own: inside the loop's, the compiler would
    undo both. What is as it was is no result of it, which would be a copy.
    """
    model = nnx.merge(graphdef, state)
    weight, vocab_axis = model.head()
    layers = unstack_layers(model, turned=turned) if devices.platform() == "cpu" else None
    return weight if vocab_axis == (0 if turned else 1) else weight.T, layers


def prefill(
    whole: Ready, prompts: Array, lengths: Array, k: int, t: int
) -> tuple[DecodeModel, KVCache, Array]:
    """The model after the prompts, each k times over, with its logits [B*K, V]."""
    b, p = prompts.shape
    model = whole.model()
    cache = KVCache.empty(model.spec, b, p + t, model.dtype)
    positions = jnp.where(jnp.arange(p) < lengths[:, None], jnp.arange(p), -1)
    hidden, cache = model(prompts, positions, cache=cache)
    assert cache is not None
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], 1)[:, 0]
    cache = dataclasses.replace(
        cache,
        kv=jax.tree.map(lambda a: jnp.repeat(a, k, 1), cache.kv),
        lengths=jnp.repeat(cache.lengths, k),
    )
    if whole.layers is not None:
        cache = split_cache(cache)
    voice = decode_model(whole)
    return voice, cache, voice.logits(jnp.repeat(last, k, 0))


def decode_model(whole: Ready) -> DecodeModel:
    """The model for single tokens."""
    model = whole.model()
    apart = model if whole.layers is None else Unrolled(model, whole.layers)
    return DecodeModel(apart, whole.head, whole.vocab_axis)
