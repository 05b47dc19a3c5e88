"""Rows with settings of their own: scored, drawn and kept as the model says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.rollout.decode_model import for_sampling
from jalign.rollout.draw import draw_each
from jalign.rollout.slots import (
    ALTERNATIVES,
    BEST,
    LOGPS,
    NOTHING,
    TOP,
    RowSettings,
    admit,
    advance,
    begin,
    empty_slots,
)
from tests.rollout._tiny import KEY, tiny

EOS = np.array([-1, 5], np.int32)
N, P = 2, 256
PROMPT = np.random.default_rng(3).integers(1, 23, 200).astype(np.int32)


def settings(count, limit=50, ends=True):
    ones = np.ones(count, np.float32)
    return RowSettings(
        0 * ones, np.full(count, 23, np.int32), ones, 0 * ones, np.full(count, limit, np.int32),
        np.full(count, ends),
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights():
    return for_sampling(tiny(), N)


@pytest.fixture(scope="module")
def log_probs():
    """[200, 23] of the model that reads the whole prompt at once."""
    graphdef, state = tiny()

    @jax.jit
    def read_all(state):
        model = nnx.merge(graphdef, state)
        hidden, _ = model(jnp.array([PROMPT]), jnp.arange(len(PROMPT))[None])
        return jax.nn.log_softmax(model.logits(hidden)[0])

    return np.asarray(read_all(state))


def read(weights, row, want, **options):
    slots = empty_slots(weights, rows=N, slots=512)
    prompts = np.zeros((1, P), np.int32)
    prompts[0, : len(PROMPT)] = PROMPT
    lengths, keys = np.array([len(PROMPT)], np.int32), jax.random.split(KEY, 1)
    rows, given = np.array([row], np.int32), settings(1, **options)
    slots, logits, scored = admit(
        weights, slots, prompts, lengths, keys, rows, given, np.int32(want)
    )
    slots, first = begin(slots, logits, keys, rows, given, EOS, np.int32(max(want, LOGPS)))
    return slots, first, scored


@pytest.mark.parametrize("want", [NOTHING, LOGPS, BEST, ALTERNATIVES])
def test_prompts_longer_than_a_block_are_scored_exactly(weights, log_probs, want):
    _, first, scored = read(weights, 0, want)
    ids = np.asarray(scored.ids[0, : len(PROMPT)])
    np.testing.assert_array_equal(ids, PROMPT)
    logps = scored.logps[0, 1 : len(PROMPT)]
    expected = log_probs[np.arange(len(PROMPT) - 1), PROMPT[1:]]
    np.testing.assert_allclose(logps, expected if want else 0 * expected, atol=1e-5)
    assert int(first.tokens.ids[0, 0]) == log_probs[-1].argmax()
    np.testing.assert_allclose(first.tokens.logps[0, 0], log_probs[-1].max(), atol=1e-5)
    count = {NOTHING: 0, LOGPS: 0, BEST: 1, ALTERNATIVES: TOP}[want]
    tops = np.asarray(scored.top_logps[0, 1 : len(PROMPT), :count])
    best = -np.sort(-log_probs[:-1], -1)[:, :count]
    np.testing.assert_allclose(tops, best, atol=1e-5)


def test_a_row_out_of_range_keeps_nothing(weights):
    slots, _, _ = read(weights, N, LOGPS)
    assert slots.position.tolist() == [0, 0]
    assert not np.any(slots.cache.lengths)


def test_rows_that_are_not_live_stay_and_the_limit_ends_a_row(weights):
    slots, first, _ = read(weights, 1, LOGPS, limit=4, ends=False)
    token = int(first.tokens.ids[0, 0])
    slots, added = advance(weights, slots, np.array([True, False]), EOS, np.int32(LOGPS), count=8)
    assert (added.count[1], slots.position[1], slots.token[1]) == (0, 1, token)
    slots, added = advance(weights, slots, np.array([False, True]), EOS, np.int32(LOGPS), count=8)
    assert added.count.tolist() == [0, 3]
    assert not added.ended[1]


def test_each_row_draws_by_its_own_settings():
    """As many rows as to see every token that a row may draw; inverse CDF by the row's uniform."""
    n, p = 400, np.array([0.1, 0.4, 0.2, 0.3])
    kind, keys = np.arange(n) % 5, jax.random.split(KEY, n)
    of = lambda *values: np.array(values)[kind]  # noqa: E731
    ids = np.asarray(
        jax.jit(draw_each)(
            jnp.tile(jnp.log(jnp.array(p, jnp.float32)), (n, 1)),
            keys,
            temperature=of(0.0, 1.0, 0.5, 1.0, 1.0).astype(np.float32),
            top_k=of(4, 4, 4, 2, 4).astype(np.int32),
            top_p=of(1.0, 1.0, 1.0, 1.0, 0.75).astype(np.float32),
            min_p=of(0.0, 0.45, 0.0, 0.0, 0.0).astype(np.float32),
        )
    )
    kept = [[0, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1], [0, 1, 1, 1]]
    uniform = np.asarray(jax.jit(jax.vmap(jax.random.uniform))(keys))
    for k, power in enumerate((1, 1, 2, 1, 1)):
        weights = p**power * kept[k]
        cumulative = np.cumsum(weights) / weights.sum()
        want = np.searchsorted(cumulative, uniform[kind == k], side="right")
        np.testing.assert_array_equal(ids[kind == k], want)
        assert set(want.tolist()) == {i for i in range(4) if kept[k][i]}
