"""Responses sampled from a decoder: one prefill, then a loop of single tokens over a KV cache.

The whole call is one compiled program; its loop stops when every row has ended. Shapes are static
(prompts are padded to multiples of 32 tokens) and parameters are arguments, so that a policy in
training never recompiles.

Letters: B prompts, K responses per prompt, n = B*K rows (row b*K + k), P prompt tokens, T new
tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from jalign.models.limits import check_rows
from jalign.rollout.decode_model import Model, prefill, ready
from jalign.rollout.draw import draw, penalise

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
        normalised, before temperature and cuts. Needs `other`.
      eos: token ids that end a response.
      responses: K, responses per prompt.
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
    """

    tokens: Int[Array, "n T"]
    mask: Bool[Array, "n T"]
    token_logps: Float[Array, "n T"]
    finished: Bool[Array, " n"]


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
      model: a decoder or its `nnx.split`; or `ready`, which saves laying out its weights anew for
        every call.
      prompts: token ids; what stands at and after `lengths` does not matter.
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
    given = [model] if other is None else [model, other]
    models = tuple(ready(m, len(prompts) * settings.responses) for m in given)
    for whole in models:
        rows = [p[:n] for p, n in zip(prompts, lengths, strict=True)]
        check_rows(rows, whole.model().spec, sampled=settings.max_new_tokens)
    longest = -(-int(lengths.max()) // BUCKET) * BUCKET
    prompts = np.pad(prompts, ((0, 0), (0, max(0, longest - prompts.shape[1]))))[:, :longest]
    return _sample(models, prompts, lengths, key, settings)


@partial(jax.jit, static_argnames="settings")
def _sample(models, prompts, lengths, key, settings: Settings) -> Samples:
    (b, _), k, t = prompts.shape, settings.responses, settings.max_new_tokens
    n, eos = b * k, jnp.array(settings.eos, jnp.int32)
    penalty, mix = settings.repetition_penalty, settings.mixture
    begun = [prefill(whole, prompts, lengths, k, t) for whole in models]
    voices = [voice for voice, _, _ in begun]
    start = jnp.repeat(lengths, k)

    def choose(logits: list[Array], seen: Array | None, i: Any) -> tuple[Array, Array]:
        # what normalises each model's logits is one number per row, which no choice depends on
        mixed = logits[0] if len(logits) == 1 else (1 - mix) * logits[0] + mix * logits[1]
        if seen is not None:
            mixed = penalise(mixed, seen, penalty)
        return draw(
            mixed,
            jax.random.fold_in(key, i),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            min_p=settings.min_p,
        )

    def write(buffer, i, column):
        return jax.lax.dynamic_update_slice(buffer, column[:, None], (0, i))

    def running(carry):
        i, _, done, *_ = carry
        return (i < t) & ~done.all()

    def body(carry):
        i, token, done, seen, caches, tokens, mask, token_logps = carry
        steps = [
            voice.model(token[:, None], (start + i - 1)[:, None], cache=cache)
            for voice, cache in zip(voices, caches, strict=True)
        ]
        logits = [v.logits(hidden[:, 0]) for v, (hidden, _) in zip(voices, steps, strict=True)]
        token, logp = choose(logits, seen, i)
        tokens = write(tokens, i, jnp.where(done, 0, token))
        token_logps = write(token_logps, i, jnp.where(done, 0.0, logp))
        mask = write(mask, i, ~done)
        seen = None if seen is None else seen.at[jnp.arange(n), token].set(True)
        caches = [cache for _, cache in steps]
        return i + 1, token, done | jnp.isin(token, eos), seen, caches, tokens, mask, token_logps

    seen = None
    if penalty != 1:
        vocab = begun[0][2].shape[-1]
        real = jnp.arange(prompts.shape[1]) < lengths[:, None]
        rows = jnp.broadcast_to(jnp.arange(b)[:, None], prompts.shape)
        seen = (
            jnp.zeros((b, vocab), bool)
            .at[rows, jnp.where(real, prompts, vocab)]
            .set(True, mode="drop")
        )
        seen = jnp.repeat(seen, k, 0)
    first, logps = choose([logits for _, _, logits in begun], seen, 0)
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
    )
    _, _, done, _, _, tokens, mask, token_logps = jax.lax.while_loop(running, body, carry)
    return Samples(tokens, mask, token_logps, done)


def generate(
    model: Model,
    tokenizer: Any,
    texts: Sequence[str | Sequence[int]],
    settings: Settings,
    key: Array,
    batch_size: int = 32,
) -> list[str]:
    """Continuations of texts, K per text one after the other (entry b*K + k).

    Args:
      model: as for `sample`.
      tokenizer: a transformers tokenizer; it decides about the leading BOS of a text.
      texts: prompts, each at least one token, or their token ids.
      settings: how to sample.
      key: batches fold their number into it.
      batch_size: prompts per call; texts of similar length go together.
    """
    ids = [prompt_ids(tokenizer, text) if isinstance(text, str) else [*text] for text in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    whole = ready(model, batch_size * settings.responses)
    out: dict[int, list[str]] = {}
    for number, start in enumerate(range(0, len(order), batch_size)):
        chosen = order[start : start + batch_size]
        rows = [ids[i] for i in chosen] + [ids[chosen[-1]]] * (batch_size - len(chosen))
        prompts = np.zeros((batch_size, max(map(len, rows))), np.int32)
        for row, row_ids in zip(prompts, rows, strict=True):
            row[: len(row_ids)] = row_ids
        lengths = np.array([len(row_ids) for row_ids in rows], np.int32)
        samples = sample(whole, prompts, lengths, jax.random.fold_in(key, number), settings)
        tokens, mask = np.asarray(samples.tokens), np.asarray(samples.mask)
        for j, i in enumerate(chosen):
            at = range(j * settings.responses, (j + 1) * settings.responses)
            responses = [tokens[r][mask[r]].tolist() for r in at]
            out[i] = [continuation(tokenizer, ids[i], r, settings.eos) for r in responses]
    return [text for i in range(len(ids)) for text in out[i]]


def prompt_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text that is to go on: without the EOS that some tokenizers put behind a text."""
    ids = tokenizer(text)["input_ids"]
    ended = ids[-1:] == [tokenizer.eos_token_id] and not text.endswith(tokenizer.eos_token)
    return ids[:-1] if ended else ids


def continuation(
    tokenizer: Any, prompt: list[int], response: list[int], ends: Collection[int] = ()
) -> str:
    """A response's text as it follows the prompt: alone, some tokenizers drop its first space. A
    last token among `ends` is left out, also where the tokenizer does not call it special.
    """
    if response and response[-1] in ends:
        response = response[:-1]
    before = tokenizer.decode(prompt, skip_special_tokens=True)
    whole = tokenizer.decode(prompt + response, skip_special_tokens=True)
    if whole.startswith(before):
        return whole[len(before) :]
    return tokenizer.decode(response, skip_special_tokens=True)
