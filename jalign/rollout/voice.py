"""A model that goes on with rows of tokens, one token at a time.

Letters: B prompts, K responses per prompt, n rows, P prompt tokens, D width, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jalign.kernels import devices
from jalign.models.cache import KVCache
from jalign.models.quant import dequantize
from jalign.rollout.unrolled import Unrolled, split_cache


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


def prefill(
    graphdef: Any, state: Any, prompts: Array, lengths: Array, k: int, t: int
) -> tuple[Voice, KVCache, Array]:
    """The model after the prompts, each k times over, with its logits [B*K, V]."""
    (b, p), (weights, (head, unrolled)) = prompts.shape, state
    model = nnx.merge(graphdef, weights)
    cache = KVCache.empty(model.spec, b, p + t, model.dtype)
    positions = jnp.where(jnp.arange(p) < lengths[:, None], jnp.arange(p), -1)
    hidden, cache = model(prompts, positions, cache=cache)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], 1)[:, 0]
    cache = dataclasses.replace(
        cache,
        kv=jax.tree.map(lambda a: jnp.repeat(a, k, 1), cache.kv),
        lengths=jnp.repeat(cache.lengths, k),
    )
    if unrolled is not None:
        model, cache = unrolled, split_cache(cache)
    voice = Voice(model, head)
    return voice, cache, voice.logits(jnp.repeat(last, k, 0))


@partial(jax.jit, static_argnums=0)
def prepare(graphdef: nnx.GraphDef, state: nnx.State) -> tuple[Array, nnx.Module | None]:
    """The weights as the loop reads them best: the unembedding laid out [D, V] (as emb.T, a single
    row is 4x slower on CPU) and on CPU the layers taken apart. A program of its own: inside the
    loop's, the compiler would undo both."""
    model = nnx.merge(graphdef, state)
    weight, vocab_axis = model.head()
    unrolled = Unrolled(dequantize(model)) if devices.platform() == "cpu" else None
    return weight if vocab_axis == 1 else weight.T, unrolled
