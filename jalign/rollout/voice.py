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
from jalign.rollout.unrolled import Unrolled, layers_apart, split_cache


class Voice(NamedTuple):
    """A model in the middle of its rows."""

    model: Any
    head: Float[Array, "D V"]

    def logits(self, hidden: Float[Array, "n D"]) -> Float[Array, "n V"]:
        spec = self.model.spec
        x = jnp.matmul(hidden, self.head, preferred_element_type=jnp.float32) * spec.logit_scale
        if spec.logit_softcap is None:
            return x
        return spec.logit_softcap * jnp.tanh(x / spec.logit_softcap)


@struct.dataclass
class Ready:
    """A model's weights as sampling reads them best, made by `ready` once for many calls.

    Attributes:
      state: the weights.
      head: [D, V] the unembedding laid out like this: as emb.T, a single row is 4x slower on CPU.
      layers: on CPU the layers taken apart (`jalign.rollout.unrolled`), else None.
      graphdef: what `state` belongs to.
    """

    state: nnx.State
    head: Any  # an array, or its shape where sampling is planned
    layers: tuple[Layer, ...] | None
    graphdef: nnx.GraphDef[Decoder] = struct.field(pytree_node=False)

    def model(self) -> Decoder:
        return nnx.merge(self.graphdef, self.state)


Model = Decoder | tuple[nnx.GraphDef[Decoder], nnx.State] | Ready
"""What can be sampled from: a decoder, its `nnx.split`, or a policy that is `ready`."""


def ready(model: Model) -> Ready:
    """The model for any number of calls that sample from it."""
    if isinstance(model, Ready):
        return model
    graphdef, state = model if isinstance(model, tuple) else nnx.split(model)
    head, layers = prepare(graphdef, state)
    return Ready(state, head, layers, graphdef=graphdef)


@partial(jax.jit, static_argnums=0)
def prepare(graphdef: nnx.GraphDef, state: nnx.State) -> tuple[Array, tuple[Layer, ...] | None]:
    """`head` and `layers` of `Ready`. A program of its own: inside the loop's, the compiler would
    undo both. What is as it was is no result of it, which would be a copy.
    """
    model = nnx.merge(graphdef, state)
    weight, vocab_axis = model.head()
    layers = layers_apart(model) if devices.platform() == "cpu" else None
    return weight if vocab_axis == 1 else weight.T, layers


def prefill(
    whole: Ready, prompts: Array, lengths: Array, k: int, t: int
) -> tuple[Voice, KVCache, Array]:
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
    voice = voice_of(whole)
    return voice, cache, voice.logits(jnp.repeat(last, k, 0))


def voice_of(whole: Ready) -> Voice:
    """The model for single tokens."""
    model = whole.model()
    return Voice(model if whole.layers is None else Unrolled(model, whole.layers), whole.head)
