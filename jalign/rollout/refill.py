"""Continuous batching: many responses of uneven length on few rows, each refilled when it ends.

Rows advance together, `chunk` tokens at a time in one compiled loop; between chunks the host
collects the rows that have ended and admits the next prompts. Every request has its own random
key, so its response depends neither on its row nor on when it is admitted.

Letters: n rows, P prompt tokens, T new tokens, r requests that are admitted together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jalign.models.limits import check_rows
from jalign.parallel import hosts
from jalign.rollout.decode_model import (
    DecodeModel,
    Model,
    SamplingWeights,
    decode_model,
    for_decoding,
    for_sampling,
    prefill,
)
from jalign.rollout.draw import draw
from jalign.rollout.groups import pad_prompts
from jalign.rollout.invariant import check_settings, draw_invariant, program_for
from jalign.rollout.sampler import BUCKET, Settings
from jalign.rollout.types import Rollout


class _Pool(NamedTuple):
    """n rows in the middle of their responses.

    Attributes:
      token: [n] the last token of each row.
      start: [n] tokens of its prompt. count: [n] tokens of its response so far.
      key: [n] of its request. done: [n] ended, or empty. ended: [n] by an EOS.
      tokens, logps: [n, T] its response.
    """

    cache: Any
    token: Array
    start: Array
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]  # no tuple.count
    key: Array
    done: Array
    ended: Array
    tokens: Array
    logps: Array


def respond_refilling(
    model: Model,
    prompts: Sequence[np.ndarray],
    settings: Settings,
    key: Array,
    *,
    rows: int,
    chunk: int = 16,
) -> Rollout:
    """`settings.responses` responses to each prompt, on `rows` rows that are refilled.

    Args:
      model: as for `sample`; one model, without a repetition penalty.
      prompts: token ids, at least one each.
      key: request j (response k of prompt b is number b * K + k) folds its number into it.
      rows: how many responses are sampled at once.
      chunk: tokens between two checks for rows that have ended.

    Raises:
      ValueError: settings that need `sample`, or too few positions in the model.
    """
    if settings.mixture or settings.repetition_penalty != 1:
        raise ValueError(
            "mixture and repetition_penalty need sample(): refilled rows are of one model's "
            "distribution alone"
        )
    weights = for_sampling(model, rows)
    if weights.model().batch_invariant:
        check_settings(settings)
    admit = program_for(weights, _admit, static=("settings",), donated="pool")
    advance = program_for(weights, _advance, static=("settings", "chunk"), donated="pool")
    k, t = settings.responses, settings.max_new_tokens
    check_rows(prompts, weights.model().spec, sampled=t)
    requests = [(b, j) for b in range(len(prompts)) for j in range(k)]
    longest = -(-max(map(len, prompts)) // BUCKET) * BUCKET
    rows = min(rows, len(requests))
    # Prefill is one program for this many prompts: with 1 each admission would cost a weights pass
    # over the weights, with all rows most of every prefill would be padding.
    together = max(1, rows // 4)
    pool, rollout = _empty(weights, longest, rows, settings), Rollout.empty(prompts, k, t)
    owner: list[tuple[int, int] | None] = [None] * rows
    admitted = 0
    while True:
        free = [row for row, request in enumerate(owner) if request is None]
        while free and admitted < len(requests):
            batch = requests[admitted : admitted + min(together, len(free))]
            ids, lengths = pad_prompts([prompts[b] for b, _ in batch], together)
            ids = np.pad(ids, ((0, 0), (0, longest - ids.shape[1])))
            slots = np.full(together, rows, np.int32)  # out of range: no request
            slots[: len(batch)] = free[: len(batch)]
            for row, request in zip(free, batch, strict=False):
                owner[row] = request
            # Always `together` keys, or the last admissions would compile programs of their own.
            request_ids = np.arange(admitted, admitted + together)
            keys = jax.vmap(partial(jax.random.fold_in, key))(request_ids)
            pool = admit(weights, pool, ids, lengths, keys, slots, settings)
            admitted, free = admitted + len(batch), free[len(batch) :]
        if all(request is None for request in owner):
            return rollout
        pool = advance(weights, pool, settings, chunk)
        _collect(pool, owner, rollout)


def _collect(pool: _Pool, owner: list[tuple[int, int] | None], rollout: Rollout) -> None:
    """Write the responses of rows that have ended to the rollout, and free those rows."""
    done, count, ended = (hosts.gather(x) for x in (pool.done, pool.count, pool.ended))
    ready = [(row, request) for row, request in enumerate(owner) if request and done[row]]
    if not ready:  # the tokens stay on the device
        return
    ids, logps = hosts.gather(pool.tokens), hosts.gather(pool.logps)
    for row, (b, j) in ready:
        rollout.write(b, j, ids[row, : count[row]], logps[row, : count[row]])
        rollout.finished[b, j] = ended[row]
        owner[row] = None


@partial(jax.jit, static_argnames=("longest", "rows", "settings"))
def _empty(weights: SamplingWeights, longest: int, rows: int, settings: Settings) -> _Pool:
    t = settings.max_new_tokens
    # A fresh cache would let tokens attend to themselves alone.
    cache = dataclasses.replace(weights.model().empty_cache(rows, longest + t), fresh=False)
    zeros = jnp.zeros(rows, jnp.int32)
    return _Pool(
        for_decoding(weights, cache),
        token=zeros,
        # The position of an empty row is start + count - 1 and must lie in the cache.
        start=zeros + 1,
        count=zeros,
        key=jax.random.split(jax.random.key(0), rows),
        done=jnp.ones(rows, bool),
        ended=jnp.zeros(rows, bool),
        tokens=jnp.zeros((rows, t), jnp.int32),
        logps=jnp.zeros((rows, t), jnp.float32),
    )


@partial(jax.jit, static_argnames="settings", donate_argnames="pool")
def _admit(
    weights: SamplingWeights,
    pool: _Pool,
    prompts: Array,
    lengths: Array,
    keys: Array,
    slots: Array,
    settings: Settings,
) -> _Pool:
    """Put requests into the rows `slots`; a slot out of range holds no request."""
    r, t = len(lengths), settings.max_new_tokens
    # Not repeated K times: responses to one prompt may be admitted at different moments.
    decoder, cache, logits = prefill(weights, prompts, lengths, 1, t)
    first, logp = _draw(decoder, logits, keys, jnp.zeros(r, jnp.int32), settings)

    def put(all_, new, axis: int = 0):
        at = (slice(None),) * axis + (slots,)
        return all_.at[at].set(new, mode="drop")

    ended = jnp.isin(first, jnp.array(settings.eos, jnp.int32))
    kv = jax.tree.map(lambda a, b: put(a, b, 1), pool.cache.kv, cache.kv)
    pad = ((0, 0), (0, t - 1))
    return _Pool(
        dataclasses.replace(pool.cache, kv=kv, lengths=put(pool.cache.lengths, cache.lengths)),
        token=put(pool.token, first),
        start=put(pool.start, lengths),
        count=put(pool.count, jnp.ones(r, jnp.int32)),
        key=put(pool.key, keys),
        done=put(pool.done, ended | (t == 1)),
        ended=put(pool.ended, ended),
        tokens=put(pool.tokens, jnp.pad(first[:, None], pad)),
        logps=put(pool.logps, jnp.pad(logp[:, None], pad)),
    )


@partial(jax.jit, static_argnames=("settings", "chunk"), donate_argnames="pool")
def _advance(weights: SamplingWeights, pool: _Pool, settings: Settings, chunk: int) -> _Pool:
    """Up to `chunk` more tokens for every row that is not done."""
    decoder, t = decode_model(weights), settings.max_new_tokens
    eos, n = jnp.array(settings.eos, jnp.int32), pool.token.shape[0]

    def running(carry):
        i, pool = carry
        return (i < chunk) & ~pool.done.all()

    def body(carry):
        i, pool = carry
        # A row that is done writes its last cache slot again, which nothing reads any more:
        # a masked write would cost a copy of the cache.
        positions = (pool.start + pool.count - 1)[:, None]
        hidden, cache = decoder.model(pool.token[:, None], positions, cache=pool.cache)
        logits = decoder.logits(hidden[:, 0])
        token, logp = _draw(decoder, logits, pool.key, pool.count, settings)
        live = ~pool.done
        # Column t is past the end: mode="drop" leaves rows that are done as they are.
        at = (jnp.arange(n), jnp.where(live, pool.count, t))
        count = pool.count + live
        ended = pool.ended | (live & jnp.isin(token, eos))
        return i + 1, pool._replace(
            cache=cache,
            token=jnp.where(live, token, pool.token),
            count=count,
            done=pool.done | ended | (count >= t),
            ended=ended,
            tokens=pool.tokens.at[at].set(token, mode="drop"),
            logps=pool.logps.at[at].set(logp, mode="drop"),
        )

    return jax.lax.while_loop(running, body, (jnp.int32(0), pool))[1]


def _draw(
    decoder: DecodeModel, logits: Array, keys: Array, count: Array, settings: Settings
) -> tuple[Array, Array]:
    keys = jax.vmap(jax.random.fold_in)(keys, count)
    if decoder.model.batch_invariant:
        return draw_invariant(logits, keys, settings.temperature)
    return draw(
        logits,
        keys,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
    )
