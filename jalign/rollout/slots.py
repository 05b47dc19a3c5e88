"""Rows that decode together and are admitted one by one, each with settings of its own.

The device programs of a server (`jalign.serve`): as in `jalign.rollout.refill` rows advance
together and are refilled, but temperature, cuts, seed and length are arrays with an entry per row,
and log-probs are the model's own. So one program per length of prompts and one for decoding serve
every request.

Letters: n rows, S slots of a row, r requests that are admitted together, P prompt tokens, C tokens
of one call, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import logsumexp
from jaxtyping import Bool, Float, Int

from jalign.rollout.decode_model import (
    DecodeModel,
    SamplingWeights,
    decode_model,
    for_decoding,
    read_prompts,
)
from jalign.rollout.draw import draw_each, greedy

TOP = 20  # alternatives of a token that are returned at most, as many as OpenAI's

# How much is returned of the distribution of a token. A number that the program is called with,
# since the alternatives cost a sort of the vocabulary and few requests want them.
NOTHING, LOGPS, BEST, ALTERNATIVES = range(4)

_SCORED = 128  # prompt tokens whose logits exist at once


class RowSettings(NamedTuple):
    """How each row samples.

    Attributes:
      temperature, top_k, top_p, min_p: as `draw_each` takes them.
      limit: most tokens of the response, at least 1.
      ends: whether an EOS ends the response.
    """

    temperature: Float[Array, " n"]
    top_k: Int[Array, " n"]
    top_p: Float[Array, " n"]
    min_p: Float[Array, " n"]
    limit: Int[Array, " n"]
    ends: Bool[Array, " n"]


class Slots(NamedTuple):
    """n rows in the middle of their responses.

    Attributes:
      cache: S slots per row.
      token: the last token of each row.
      start: tokens of its prompt. position: tokens of its response so far.
      key: of its request.
    """

    cache: Any
    token: Int[Array, " n"]
    start: Int[Array, " n"]
    position: Int[Array, " n"]
    key: Array
    settings: RowSettings


class Scored(NamedTuple):
    """Tokens of n rows with their log-probs under the model, nats, without temperature and cuts.

    Attributes:
      ids, logps: [n, C].
      top_ids, top_logps: [n, C, TOP], the most probable first; 0 where they were not asked for.
    """

    ids: Int[Array, "n C"]
    logps: Float[Array, "n C"]
    top_ids: Int[Array, "n C K"]
    top_logps: Float[Array, "n C K"]


class Decoded(NamedTuple):
    """What one call has added to each row.

    Attributes:
      tokens: the first `count` of each row are new.
      ended: the last one is an EOS that ends the response.
    """

    tokens: Scored
    count: Int[Array, " n"]  # pyright: ignore[reportIncompatibleMethodOverride]  # no tuple.count
    ended: Bool[Array, " n"]


@partial(jax.jit, static_argnames=("rows", "slots"))
def empty_slots(weights: SamplingWeights, *, rows: int, slots: int) -> Slots:
    """Rows without a request."""
    # A fresh cache would let tokens attend to themselves alone.
    cache = dataclasses.replace(weights.model().empty_cache(rows, slots), fresh=False)
    zeros, ones = jnp.zeros(rows, jnp.int32), jnp.ones(rows, jnp.float32)
    # Positions of an empty row are start + position - 1 and must lie in the cache.
    return Slots(
        for_decoding(weights, cache),
        token=zeros,
        start=zeros + 1,
        position=zeros,
        key=jax.random.split(jax.random.key(0), rows),
        settings=RowSettings(ones, zeros + 1, ones, 0 * ones, zeros + 1, jnp.ones(rows, bool)),
    )


@partial(jax.jit, donate_argnames="slots")
def admit(
    weights: SamplingWeights,
    slots: Slots,
    prompts: Int[Array, "r P"],
    lengths: Int[Array, " r"],
    keys: Array,
    rows: Int[Array, " r"],
    settings: RowSettings,
    want: Int[Array, ""],
) -> tuple[Slots, Float[Array, "r V"], Scored]:
    """Read prompts and put the requests into `rows`; a row out of range keeps nothing: for
    responses of one token, and for padding. `begin` follows.

    Args:
      want: how much of the prompts is scored, one of NOTHING .. ALTERNATIVES.

    Returns:
      The rows, the logits of the first tokens, and the prompts [r, P], whose first token has no
      log-prob (0).
    """
    room = slots.cache.slots
    decoder, cache, hidden = read_prompts(weights, prompts, lengths, room - prompts.shape[1])
    last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], 1)[:, 0]
    put = partial(_put, rows)
    kv = jax.tree.map(partial(put, axis=1), slots.cache.kv, for_decoding(weights, cache).kv)
    held = put(slots.cache.lengths, cache.lengths)
    admitted = Slots(
        dataclasses.replace(slots.cache, kv=kv, lengths=held),
        token=slots.token,
        start=put(slots.start, lengths),
        position=put(slots.position, jnp.zeros_like(lengths)),
        key=put(slots.key, keys),
        settings=jax.tree.map(put, slots.settings, settings),
    )
    return admitted, decoder.logits(last), _score_prompts(decoder, hidden, prompts, want)


# Of its own: prompts of every length share this program, which takes a third of the time to compile
# them both.
@partial(jax.jit, donate_argnames="slots")
def begin(
    slots: Slots,
    logits: Float[Array, "r V"],
    keys: Array,
    rows: Int[Array, " r"],
    settings: RowSettings,
    eos: Int[Array, " e"],
    want: Int[Array, ""],
) -> tuple[Slots, Decoded]:
    """Draw the first tokens of the responses that `admit` has put into `rows`.

    Args:
      logits: from `admit`; the others as there.
      eos: ids of tokens that end a response.
      want: how much of the tokens is scored, one of LOGPS .. ALTERNATIVES.
    """
    first = _draw(logits, keys, jnp.zeros(len(logits), jnp.int32), settings)
    ones = jnp.ones(len(logits), jnp.int32)
    begun = slots._replace(
        token=_put(rows, slots.token, first), position=_put(rows, slots.position, ones)
    )
    scored = jax.tree.map(lambda x: x[:, None], _score(logits, first, want))
    return begun, Decoded(scored, ones, jnp.isin(first, eos) & settings.ends)


@partial(jax.jit, static_argnames="count", donate_argnames="slots")
def advance(
    weights: SamplingWeights,
    slots: Slots,
    live: Bool[Array, " n"],
    eos: Int[Array, " e"],
    want: Int[Array, ""],
    *,
    count: int,
) -> tuple[Slots, Decoded]:
    """Up to `count` more tokens of every row that is live.

    Args:
      live: rows whose response goes on; the others keep what they hold.
      eos: as in `begin`.
      want: one of LOGPS .. ALTERNATIVES.
    """
    decoder, n = decode_model(weights), slots.token.shape[0]
    live = live & (slots.position < slots.settings.limit)

    def running(carry):
        i, _, live, _, _ = carry
        return (i < count) & live.any()

    def body(carry):
        i, slots, live, ended, out = carry
        # A row that is not live writes its last slot again, which nothing reads any more: a masked
        # write would cost a copy of the cache.
        positions = (slots.start + slots.position - 1)[:, None]
        if decoder.model.spec.delta is not None:  # a state would take the token in again
            positions = jnp.where(live[:, None], positions, -1)
        hidden, cache = decoder.model(slots.token[:, None], positions, cache=slots.cache)
        logits = decoder.logits(hidden[:, 0])
        token = _draw(logits, slots.key, slots.position, slots.settings)
        # Columns are numbered alike in all rows: one that ends leaves the rest of its own unread.
        out = jax.tree.map(lambda a, x: a.at[:, i].set(x), out, _score(logits, token, want))
        position = slots.position + live
        now = live & jnp.isin(token, eos) & slots.settings.ends
        slots = slots._replace(
            cache=cache, token=jnp.where(live, token, slots.token), position=position
        )
        live = live & ~now & (position < slots.settings.limit)
        return i + 1, slots, live, ended | now, out

    integers = jnp.zeros((n, count, TOP), jnp.int32)
    floats = jnp.zeros((n, count, TOP), jnp.float32)
    out = Scored(integers[..., 0], floats[..., 0], integers, floats)
    before = slots.position
    carry = (jnp.int32(0), slots, live, jnp.zeros(n, bool), out)
    _, slots, _, ended, out = jax.lax.while_loop(running, body, carry)
    return slots, Decoded(out, slots.position - before, ended)


def _put(rows: Array, all_: Array, new: Array, axis: int = 0) -> Array:
    at = (slice(None),) * axis + (rows,)
    return all_.at[at].set(new, mode="drop")


def _draw(logits: Array, keys: Array, position: Array, settings: RowSettings) -> Array:
    return draw_each(
        logits,
        # Of the request and the token alone: neighbors and moments change no draw.
        jax.vmap(jax.random.fold_in)(keys, position),
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
    )


def _score(logits: Float[Array, "m V"], ids: Int[Array, " m"], want: Array) -> Scored:
    """Log-probs of tokens and of their alternatives."""
    m, most = len(ids), min(TOP, logits.shape[-1])
    total = logsumexp(logits, axis=-1)

    def alternatives(count: int) -> tuple[Array, Array]:
        top = (logits.max(-1, keepdims=True), greedy(logits)[:, None])
        values, top_ids = top if count == 1 else jax.lax.top_k(logits, count)
        pad = ((0, 0), (0, TOP - count))
        # Behind a small vocabulary: no alternative has a probability.
        return jnp.pad(top_ids, pad), jnp.pad(
            values - total[:, None], pad, constant_values=-jnp.inf
        )

    def nothing() -> tuple[Array, Array]:
        return jnp.zeros((m, TOP), jnp.int32), jnp.zeros((m, TOP), jnp.float32)

    kinds = (nothing, nothing, lambda: alternatives(1), lambda: alternatives(most))
    top_ids, top_logps = jax.lax.switch(want, kinds)
    logps = jnp.take_along_axis(logits, ids[:, None], 1)[:, 0] - total
    return Scored(ids, logps, top_ids, top_logps)


def _score_prompts(decoder: DecodeModel, hidden: Array, prompts: Array, want: Array) -> Scored:
    """Each token of the prompts given those before it."""
    (r, p), block = prompts.shape, min(_SCORED, prompts.shape[1])

    def scored() -> Scored:
        following = jnp.roll(prompts, -1, 1).reshape(-1, block)
        blocks = hidden.reshape(-1, block, hidden.shape[-1]), following
        # Block by block: the logits of all tokens would be the largest array of all.
        by_block = jax.lax.map(lambda x: _score(decoder.logits(x[0]), x[1], want), blocks)
        # Scored at the token before: moved to the token itself.
        return jax.tree.map(
            lambda x: jnp.roll(x.reshape(r, p, *x.shape[2:]), 1, 1).at[:, 0].set(0), by_block
        )

    def nothing() -> Scored:
        integers = jnp.zeros((r, p, TOP), jnp.int32)
        floats = jnp.zeros((r, p, TOP), jnp.float32)
        return Scored(prompts, floats[..., 0], integers, floats)

    return jax.lax.cond(want > NOTHING, scored, nothing)._replace(ids=prompts)
