"""Many responses of uneven length on few rows: a row that has ended takes the next prompt.

Rows advance together, `chunk` tokens at a time in one compiled loop; in between, ended rows are
collected and filled again. Every request has random numbers of its own, so that what is sampled
does not depend on which row it lands in, or when.

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

from jalign.models.cache import KVCache
from jalign.models.limits import check_rows
from jalign.parallel import hosts
from jalign.rollout.decode_model import Ready, decode_model, prefill, ready
from jalign.rollout.draw import draw
from jalign.rollout.groups import Responses
from jalign.rollout.sampler import BUCKET, Settings
from jalign.rollout.unrolled import split_cache


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
    model: Any,
    prompts: Sequence[np.ndarray],
    settings: Settings,
    key: Array,
    *,
    rows: int,
    chunk: int = 16,
) -> Responses:
    """`settings.responses` responses to each prompt, on `rows` rows that are refilled.

    Args:
      model: as for `sample`; one model, without a repetition penalty.
      prompts: token ids, at least one each.
      key: request j (response k of prompt b is number b * K + k) folds its number into it.
      rows: how many responses are sampled at once.
      chunk: tokens between two looks at which rows have ended.

    Raises:
      ValueError: settings that need `sample`, or too few positions in the model.
    """
    if settings.mixture or settings.repetition_penalty != 1:
        raise ValueError("mixture and repetition_penalty need sample(): rows here are one model's")
    whole = ready(model, rows)
    k, t = settings.responses, settings.max_new_tokens
    longest = -(-max(map(len, prompts)) // BUCKET) * BUCKET
    check_rows(prompts, whole.model().spec, sampled=t)
    waiting = [(b, j) for b in range(len(prompts)) for j in range(k)]
    rows = min(rows, len(waiting))
    together = max(1, rows // 4)
    pool = _empty(whole, longest, rows, settings)
    tokens: list[list[Any]] = [[None] * k for _ in prompts]
    logps: list[list[Any]] = [[None] * k for _ in prompts]
    finished = np.zeros((len(prompts), k), bool)
    owner: list[tuple[int, int] | None] = [None] * rows
    taken = 0
    while True:
        free = [i for i, who in enumerate(owner) if who is None]
        while free and taken < len(waiting):
            new = waiting[taken : taken + min(together, len(free))]
            ids = np.zeros((together, longest), np.int32)
            lengths, places = np.ones(together, np.int32), np.full(together, rows, np.int32)
            numbers = np.arange(taken, taken + together)
            for at, (b, _) in enumerate(new):
                ids[at, : len(prompts[b])] = prompts[b]
                lengths[at], places[at] = len(prompts[b]), free[at]
                owner[free[at]] = new[at]
            keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
            pool = _admit(whole, pool, ids, lengths, keys, places, settings)
            taken, free = taken + len(new), free[len(new) :]
        if all(who is None for who in owner):
            return Responses(tokens, logps, finished)
        pool = _advance(whole, pool, settings, chunk)
        done, count, ended = (hosts.gather(x) for x in (pool.done, pool.count, pool.ended))
        over = [(i, who) for i, who in enumerate(owner) if who is not None and done[i]]
        if not over:
            continue
        ids, found = hosts.gather(pool.tokens), hosts.gather(pool.logps)
        for i, (b, j) in over:
            tokens[b][j], logps[b][j] = ids[i, : count[i]].copy(), found[i, : count[i]].copy()
            finished[b, j] = ended[i]
            owner[i] = None


@partial(jax.jit, static_argnames=("longest", "rows", "settings"))
def _empty(whole: Ready, longest: int, rows: int, settings: Settings) -> _Pool:
    t, model = settings.max_new_tokens, whole.model()
    cache = KVCache.empty(model.spec, rows, longest + t, model.dtype)
    cache = dataclasses.replace(cache, fresh=False)
    zeros = jnp.zeros(rows, jnp.int32)
    return _Pool(
        cache if whole.layers is None else split_cache(cache),
        token=zeros,
        start=zeros + 1,
        count=zeros,
        key=jax.random.split(jax.random.key(0), rows),
        done=jnp.ones(rows, bool),
        ended=jnp.zeros(rows, bool),
        tokens=jnp.zeros((rows, t), jnp.int32),
        logps=jnp.zeros((rows, t), jnp.float32),
    )


@partial(jax.jit, static_argnames="settings", donate_argnames="pool")
def _admit(whole, pool: _Pool, prompts, lengths, keys, places, settings) -> _Pool:
    """Requests put into the rows `places`; a place out of range is no request."""
    r, t = len(lengths), settings.max_new_tokens
    _, cache, logits = prefill(whole, prompts, lengths, 1, t)
    first, logp = _draw(logits, keys, jnp.zeros(r, jnp.int32), settings)

    def put(all_, new, axis: int = 0):
        at = (slice(None),) * axis + (places,)
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
def _advance(whole, pool: _Pool, settings: Settings, chunk: int) -> _Pool:
    """Up to `chunk` more tokens for every row that is not done."""
    voice, t = decode_model(whole), settings.max_new_tokens
    eos, n = jnp.array(settings.eos, jnp.int32), pool.token.shape[0]

    def running(carry):
        i, pool = carry
        return (i < chunk) & ~pool.done.all()

    def body(carry):
        i, pool = carry
        # a row that is done writes its last place again, which nothing reads any more
        positions = (pool.start + pool.count - 1)[:, None]
        hidden, cache = voice.model(pool.token[:, None], positions, cache=pool.cache)
        token, logp = _draw(voice.logits(hidden[:, 0]), pool.key, pool.count, settings)
        live = ~pool.done
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


def _draw(logits: Array, keys: Array, count: Array, settings: Settings) -> tuple[Array, Array]:
    return draw(
        logits,
        jax.vmap(jax.random.fold_in)(keys, count),
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        min_p=settings.min_p,
    )
