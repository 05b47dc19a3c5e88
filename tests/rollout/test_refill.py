"""Rows that are refilled give every request the response it would get alone."""

import dataclasses

import jax
import numpy as np
import pytest

from jalign.rollout.groups import respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from tests.rollout._tiny import KEY, tiny

PROMPTS = [np.arange(1, 1 + n) for n in (3, 1, 5, 2, 4, 3, 1)]


@pytest.fixture(scope="module")
def model():
    return tiny()


def lists(rollout):
    k = rollout.finished.shape[1]
    flat = [ids.tolist() for ids in rollout.responses()]
    return [flat[i : i + k] for i in range(0, len(flat), k)]


def test_greedy_responses_are_those_of_the_sampler_that_waits_for_all(model):
    settings = Settings(max_new_tokens=7, temperature=0.0)
    told = respond(model, PROMPTS, settings, KEY, batch_size=7)
    stops = tuple({row[0][2] for row in lists(told)[:3]})
    settings = dataclasses.replace(settings, eos=stops)
    want = respond(model, PROMPTS, settings, KEY, batch_size=7)
    got = respond_refilling(model, PROMPTS, settings, KEY, rows=3, chunk=2)
    assert lists(got) == lists(want)
    np.testing.assert_array_equal(got.finished, want.finished)
    assert len(set(got.lengths[:, 0].tolist())) > 1


def test_what_is_sampled_does_not_depend_on_rows_or_chunks(model):
    settings = Settings(max_new_tokens=6, temperature=1.5, responses=2, eos=(4,))
    a = respond_refilling(model, PROMPTS, settings, KEY, rows=3, chunk=2)
    b = respond_refilling(model, PROMPTS, settings, KEY, rows=14, chunk=5)
    assert lists(a) == lists(b)
    np.testing.assert_allclose(a.token_logps, b.token_logps, atol=1e-5)
    assert any(x != y for x, y in lists(a))


def test_settings_that_need_more_than_one_model_are_refused(model):
    with pytest.raises(ValueError, match="one model's"):
        respond_refilling(
            model, PROMPTS, Settings(repetition_penalty=1.2), jax.random.key(1), rows=2
        )
