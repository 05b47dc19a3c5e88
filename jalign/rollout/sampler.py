"""Responses sampled from a decoder: one prefill, then a loop of single tokens over a KV cache.

The whole call is one compiled program; its loop stops when every row has ended. Shapes are static
(prompts are padded to multiples of 32 tokens) and parameters are arguments, so that a policy in
training never recompiles.

Letters: B prompts, K responses per prompt, n = B*K rows (row b*K + k), P prompt tokens, T new
tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jalign.models.cache import KVCache
from jalign.models.experts.router import selected
from jalign.models.limits import check_rows
from jalign.models.spec import Spec
from jalign.rollout.decode_model import DecodeModel, Model, SamplingWeights, for_sampling, prefill
from jalign.rollout.draw import draw, penalize
from jalign.rollout.invariant import check_settings, draw_invariant, program_for

BUCKET = 32  # prompts are padded to a multiple of this many tokens


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
      max_new_tokens: T, at least 1.
      temperature: >= 0; 0 takes the most probable token.
      top_k: keep the k most probable tokens; None keeps all.
      top_p: keep the smallest set of most probable tokens with this mass, in (0, 1].
      min_p: keep tokens at least this times as probable as the most probable one, in [0, 1).
      repetition_penalty: > 1 makes tokens of the prompt and the response so far less probable.
      mixture: weight b of a second model, in [0, 1]: tokens are drawn from p^(1 - b) * other^b,
        normalized, before temperature and cuts. Needs `other`.
      eos: token ids that end a response.
      responses: K, responses per prompt.
      record_experts: of a mixture, return which experts each response token used.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    mixture: float = 0.0
    eos: tuple[int, ...] = ()
    responses: int = 1
    record_experts: bool = False

    def __post_init__(self):
        for name in ("max_new_tokens", "responses", "top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not 0 <= self.min_p < 1:
            raise ValueError(f"min_p must be in [0, 1), got {self.min_p}")
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty must be > 0, got {self.repetition_penalty}")
        if not 0 <= self.mixture <= 1:
            raise ValueError(f"mixture must be in [0, 1], got {self.mixture}")


class Samples(NamedTuple):
    """Responses, right-padded with token 0.

    Attributes:
      tokens: [n, T] ids, the ending eos included.
      mask: [n, T] True on the response.
      token_logps: [n, T] log-probs (nats) under the distribution sampled from, temperature and
        cuts included; 0 outside the mask.
      finished: [n] ended by an eos, not by the limit.
      experts: [n, T, L * k] of each layer, or None; -1 where a token was not read, as the last one.
    """

    tokens: Int[Array, "n T"]
    mask: Bool[Array, "n T"]
    token_logps: Float[Array, "n T"]
    finished: Bool[Array, " n"]
    experts: Int[Array, "n T e"] | None = None


def sample(
    model: Model,
    prompts: Int[ArrayLike, "B P"],
    lengths: Int[ArrayLike, " B"],
    key: Array,
    settings: Settings,
    other: Model | None = None,
) -> Samples:
    """K responses to each of B right-padded prompts.

    Args:
      model: a decoder or its `nnx.split`; or `for_sampling` of one, which lays out its weights once
        for many calls.
      prompts: token ids; those at and after `lengths` are ignored.
      lengths: tokens of each prompt, in [1, P].
      key: for the same key a row's draws do not depend on the rows below it.
      settings: how to sample; a new value compiles a new program.
      other: the second model of `settings.mixture`, with the same vocabulary (Nash-MD,
        https://arxiv.org/abs/2312.00886).

    Raises:
      ValueError: shapes do not fit, a length is out of range, a model has too few positions, or
        `other` and `settings.mixture` do not go together.
    """
    prompts, lengths = np.asarray(prompts, np.int32), np.asarray(lengths, np.int32)
    if prompts.ndim != 2 or lengths.shape != prompts.shape[:1]:
        raise ValueError(f"prompts [B, P] and lengths [B], got {prompts.shape}, {lengths.shape}")
    if lengths.min() < 1 or lengths.max() > prompts.shape[1]:
        raise ValueError(f"lengths must be in [1, {prompts.shape[1]}], got {lengths.tolist()}")
    if (other is not None) != (settings.mixture > 0):
        raise ValueError("a second model needs settings.mixture > 0, and mixture a second model")
    both = [model] if other is None else [model, other]
    models = tuple(for_sampling(m, len(prompts) * settings.responses) for m in both)
    if models[0].model().batch_invariant:
        check_settings(settings)
    for weights in models:
        rows = [p[:n] for p, n in zip(prompts, lengths, strict=True)]
        check_rows(rows, weights.model().spec, sampled=settings.max_new_tokens)
    # Without buckets every new longest prompt would compile the whole program again.
    longest = -(-int(lengths.max()) // BUCKET) * BUCKET
    prompts = np.pad(prompts, ((0, 0), (0, max(0, longest - prompts.shape[1]))))[:, :longest]
    program = program_for(models[0], _sample, static=("settings",))
    return program(models, prompts, lengths, key, settings)


@partial(jax.jit, static_argnames="settings")
def _sample(
    models: tuple[SamplingWeights, ...],
    prompts: Int[Array, "B P"],
    lengths: Int[Array, " B"],
    key: Array,
    settings: Settings,
) -> Samples:
    (b, _), k, t = prompts.shape, settings.responses, settings.max_new_tokens
    n, eos = b * k, jnp.array(settings.eos, jnp.int32)
    begun = [prefill(weights, prompts, lengths, k, t) for weights in models]
    decoders = [decoder for decoder, _, _ in begun]
    start = jnp.repeat(lengths, k)
    choose = partial(_choose, settings=settings, invariant=decoders[0].model.batch_invariant)

    def write(buffer: Array, i: Any, column: Array) -> Array:
        return jax.lax.dynamic_update_slice(buffer, column[:, None], (0, i))

    def running(carry):
        i, _, done, *_ = carry
        return (i < t) & ~done.all()

    def body(carry):
        i, token, done, seen, caches, tokens, mask, token_logps, experts = carry
        logits, caches, used = _advance(decoders, caches, token, start + i - 1, settings)
        if used is not None:  # of the token before: its own are known when it is read
            used = jnp.where(done[:, None], -1, used)[:, None]
            experts = jax.lax.dynamic_update_slice(experts, used, (0, i - 1, 0))
        token, logp = choose(logits, seen, jax.random.fold_in(key, i))
        # Rows that have ended run on until all have: in one program no row can stop alone.
        tokens = write(tokens, i, jnp.where(done, 0, token))
        token_logps = write(token_logps, i, jnp.where(done, 0.0, logp))
        mask = write(mask, i, ~done)
        seen = None if seen is None else seen.at[jnp.arange(n), token].set(True)
        done = done | jnp.isin(token, eos)
        return i + 1, token, done, seen, caches, tokens, mask, token_logps, experts

    seen = None
    # [n, V] flags are carried only where a penalty reads them.
    if settings.repetition_penalty != 1:
        seen = jnp.repeat(_seen(prompts, lengths, begun[0][2].shape[-1]), k, 0)
    logits = [logits for _, _, logits in begun]
    # The prefill has the logits of the first token, so the loop starts at the second.
    first, logps = choose(logits, seen, jax.random.fold_in(key, 0))
    seen = None if seen is None else seen.at[jnp.arange(n), first].set(True)
    carry = (
        jnp.int32(1),
        first,
        jnp.isin(first, eos),
        seen,
        [cache for _, cache, _ in begun],
        write(jnp.zeros((n, t), jnp.int32), 0, first),
        write(jnp.zeros((n, t), bool), 0, jnp.ones(n, bool)),
        write(jnp.zeros((n, t), jnp.float32), 0, logps),
        _no_experts(decoders[0].model.spec, n, t) if settings.record_experts else None,
    )
    _, _, done, _, _, *out, experts = jax.lax.while_loop(running, body, carry)
    return Samples(*out, done, experts)


def _no_experts(spec: Spec, n: int, t: int) -> Int[Array, "n T e"]:
    if spec.experts is None:
        raise ValueError("experts are recorded of a mixture, and this model has none")
    return jnp.full((n, t, spec.depth * spec.experts.top_k), -1, jnp.int16)


def _advance(
    decoders: Sequence[DecodeModel],
    caches: Sequence[KVCache],
    token: Array,
    position: Array,
    settings: Settings,
) -> tuple[list[Array], list[KVCache], Int[Array, "n e"] | None]:
    """Logits [n, V] of every model after one more token, the caches that now hold it, and the
    experts that it used if they are recorded.
    """
    logits, after, experts = [], [], None
    for decoder, cache in zip(decoders, caches, strict=True):
        if settings.record_experts:
            hidden, cache, router = decoder.model.with_router(
                token[:, None], position[:, None], cache=cache
            )
            used = selected(router[:, :, 0], decoder.model.spec.experts.top_k)  # [L, n, k]
            experts = used.swapaxes(0, 1).reshape(len(token), -1).astype(jnp.int16)
        else:
            hidden, cache = decoder.model(token[:, None], position[:, None], cache=cache)
        logits.append(decoder.logits(hidden[:, 0]))
        after.append(cache)
    return logits, after, experts


def _choose(
    logits: Sequence[Array],
    seen: Array | None,
    key: Array,
    settings: Settings,
    invariant: bool,
) -> tuple[Array, Array]:
    """The next token of each row and its log-prob."""
    if invariant:
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(logits[0])))
        return draw_invariant(logits[0], keys, settings.temperature)
    mix, mixed = settings.mixture, logits[0]
    if len(logits) > 1:
        # Unnormalized logits may be mixed: a model's normalizer adds one number to a whole row,
        # which changes no token's probability.
        mixed = (1 - mix) * logits[0] + mix * logits[1]
    if seen is not None:
        mixed = penalize(mixed, seen, settings.repetition_penalty)
    return draw(
        mixed,
        key,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
    )


def _seen(prompts: Int[Array, "B P"], lengths: Int[Array, " B"], vocab: int) -> Bool[Array, "B V"]:
    """Which tokens each prompt holds."""
    real = jnp.arange(prompts.shape[1]) < lengths[:, None]
    rows = jnp.broadcast_to(jnp.arange(len(prompts))[:, None], prompts.shape)
    # padding goes to column V, which mode="drop" ignores
    columns = jnp.where(real, prompts, vocab)
    return jnp.zeros((len(prompts), vocab), bool).at[rows, columns].set(True, mode="drop")
