"""Token-by-token decoding: weights in a decoding layout, prefill, and the logits of one token.

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
from jalign.models import invariant
from jalign.models.block import Layer
from jalign.models.cache import KVCache
from jalign.models.decoder import Decoder
from jalign.models.experts import in_place
from jalign.models.own import OwnDecoder
from jalign.rollout.unrolled import (
    TRANSPOSE_FROM_ROWS,
    Unrolled,
    matmul_transposed,
    split_cache,
    unstack_layers,
)


class DecodeModel(NamedTuple):
    """A model that decodes one token per row; `head` and `vocab_axis` as in `SamplingWeights`."""

    model: Decoder | OwnDecoder
    head: Array
    vocab_axis: int

    def logits(self, hidden: Float[Array, "n D"]) -> Float[Array, "n V"]:
        if self.model.batch_invariant:
            return invariant.logits(self.model, hidden)
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
class SamplingWeights:
    """A model's weights in the layout that decodes fastest, made by `for_sampling` once for many
    calls.

    Attributes:
      state: the weights.
      head: the unembedding, [D, V], or [V, D] where products are transposed
        (`jalign.rollout.unrolled`).
      layers: on CPU the unstacked layers, else None: they stay stacked.
      graphdef: what `state` belongs to.
      vocab_axis: which axis of `head` is the vocabulary.
    """

    state: nnx.State
    head: Any  # an array, or its shape where sampling is planned
    layers: tuple[Layer, ...] | None
    graphdef: nnx.GraphDef[Decoder] = struct.field(pytree_node=False)
    vocab_axis: int = struct.field(pytree_node=False)

    def model(self) -> Decoder | OwnDecoder:
        model = nnx.merge(self.graphdef, self.state)
        in_place.set_frozen(model)
        return model


Model = Decoder | OwnDecoder | tuple[nnx.GraphDef[Decoder], nnx.State] | SamplingWeights
"""What can be sampled from: a decoder (or a module of your own in its place), its `nnx.split`, or
the result of `for_sampling`."""


def for_sampling(model: Model, rows: int) -> SamplingWeights:
    """Lay out a model's weights once for many calls that sample about `rows` rows."""
    if isinstance(model, SamplingWeights):
        return model
    graphdef, state = model if isinstance(model, tuple) else nnx.split(model)
    transposed = devices.platform() == "cpu" and rows >= TRANSPOSE_FROM_ROWS
    # The products of the scorer, in its layout of the weights.
    transposed &= not nnx.merge(graphdef, state).batch_invariant
    head, layers = relayout(graphdef, transposed, state)
    vocab_axis = 0 if transposed else 1
    return SamplingWeights(state, head, layers, graphdef=graphdef, vocab_axis=vocab_axis)


@partial(jax.jit, static_argnums=(0, 1))
def relayout(
    graphdef: nnx.GraphDef, transposed: bool, state: nnx.State
) -> tuple[Array, tuple[Layer, ...] | None]:
    """`head` and `layers` of `SamplingWeights`; unchanged weights are not returned, since a jitted
    function returns copies.
    """
    # A program of its own: inside the sampling loop the compiler would undo both layouts.
    model = nnx.merge(graphdef, state)
    weight, vocab_axis = model.head()
    # [D, V] and not emb.T of a tied head: for one row the transposed product takes 4x the time.
    stacked = isinstance(model, Decoder) and devices.platform() == "cpu"
    layers = unstack_layers(model, transposed=transposed) if stacked else None
    return weight if vocab_axis == (0 if transposed else 1) else weight.T, layers


def prefill(
    weights: SamplingWeights, prompts: Array, lengths: Array, k: int, t: int
) -> tuple[DecodeModel, KVCache, Array]:
    """Run the prompts; returns the model, its cache repeated k times per prompt, and the logits
    [B*K, V] of the first response token.
    """
    decoder, cache, hidden = read_prompts(weights, prompts, lengths, t)
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], 1)[:, 0]
    cache = for_decoding(weights, cache)
    cache = dataclasses.replace(
        cache,
        # The K responses share one prefill of their prompt.
        kv=jax.tree.map(lambda a: jnp.repeat(a, k, 1), cache.kv),
        lengths=jnp.repeat(cache.lengths, k),
    )
    return decoder, cache, decoder.logits(jnp.repeat(last, k, 0))


def read_prompts(
    weights: SamplingWeights, prompts: Array, lengths: Array, t: int
) -> tuple[DecodeModel, KVCache, Float[Array, "B P D"]]:
    """Run the prompts; returns the model, a cache with t further slots, and all hidden states."""
    b, p = prompts.shape
    model = weights.model()
    cache = model.empty_cache(b, p + t)
    # -1 marks padding, so that a row's length in the cache counts real tokens only.
    positions = jnp.where(jnp.arange(p) < lengths[:, None], jnp.arange(p), -1)
    hidden, cache = model(prompts, positions, cache=cache)
    assert cache is not None
    return decode_model(weights), cache, hidden


def for_decoding(weights: SamplingWeights, cache: KVCache) -> KVCache:
    """The cache in the layout that single tokens are decoded with."""
    model = weights.model()
    return split_cache(cache, model.spec) if _layer_by_layer(weights, model) else cache


def decode_model(weights: SamplingWeights) -> DecodeModel:
    """The model for single tokens."""
    model = weights.model()
    decoder = Unrolled(model, weights.layers) if _layer_by_layer(weights, model) else model
    return DecodeModel(decoder, weights.head, weights.vocab_axis)


def _layer_by_layer(weights: SamplingWeights, model: Decoder | OwnDecoder) -> bool:
    """Whether layers have caches of their own (`jalign.rollout.unrolled`)."""
    if weights.layers is not None:
        return True
    # The products of the scorer, in its loop over layers.
    return isinstance(model, Decoder) and devices.platform() == "tpu" and not model.batch_invariant
