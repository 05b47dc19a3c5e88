"""What online methods make of judged samples, by hand."""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from jalign import experience, losses
from jalign.algorithms import get
from jalign.train.experience_fields import experience_fields

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = math.nan


def test_tokens_get_the_normalised_rewards_of_the_steps_that_end_at_them_or_later():
    """Two prompts of two responses; the third response is shorter, the last is left out."""
    step_scores = A(
        [[NAN, 1.0, NAN, 4.0], [NAN, NAN, 2.0, 0.5]], [[3.0, NAN, 5.0, NAN], [NAN, 9.0, NAN, 7.0]]
    )
    mask = A([[1, 1, 1, 1], [1, 1, 1, 1]], [[1, 1, 1, 0], [0, 0, 0, 0]]) > 0
    found = experience.steps_normalized(step_scores, mask)["advantages"]
    scores = np.array([1.0, 4.0, 2.0, 0.5])
    a, b, c, d = (scores - scores.mean()) / (scores.std(ddof=1) + 1e-4)
    first = [[a + b, a + b, b, b], [c + d, c + d, c + d, d]]
    e = 1 / (math.sqrt(2.0) + 1e-4)  # of 3 and 5, whose mean is 4
    second = [[-e + e, e, e, 0.0], [0.0] * 4]
    np.testing.assert_allclose(found, [first, second], rtol=1e-5, atol=1e-6)


def test_of_two_accepted_responses_the_one_with_the_higher_score_is_chosen():
    scores = A([1.0, 4.0, 3.0], [2.0, 2.0, 2.0], [5.0, 1.0, NAN], [NAN, NAN, 7.0])
    valid = ~jnp.isnan(scores)
    uniforms = jnp.full((4, 3, 3), 0.99).at[:, 0, 2].set(0.1).at[:, 1, 0].set(0.01)
    found = experience.rejection_sampled(scores, valid, uniforms, rejection_beta=1.0)
    # of the first prompt 4 in the first sweep and 3 by exp(-1) > 0.1, of the third 5 and then 1
    assert found["take"][0].tolist() == [1, 2] and found["take"][2].tolist() == [0, 1]
    assert found["keep"].tolist() == [True, False, True, False]


def test_an_accepted_response_of_a_lower_score_is_rejected_though_it_came_first():
    scores, uniforms = A([1.0, 4.0, 3.0]), jnp.full((1, 3, 3), 0.99).at[0, 0, 0].set(0.0)
    found = experience.rejection_sampled(scores, scores > 0, uniforms, rejection_beta=0.5)
    assert found["take"].tolist() == [[1, 0]] and found["keep"].tolist() == [True]


def test_of_the_best_answers_the_top_share_of_the_rollout_is_kept():
    scores = A([1.0, 2.0], [9.0, 3.0], [4.0, NAN], [NAN, NAN], [8.0, 0.0])
    found = experience.top_share(scores, ~jnp.isnan(scores), alpha=0.5)
    assert found["take"][:3].tolist() == [[1], [0], [0]] and found["take"][4].tolist() == [0]
    assert found["keep"].tolist() == [False, True, False, False, True]


def test_a_pair_of_a_game_with_a_response_that_is_not_learned_from_is_left_out():
    """As a response that was cut at the limit, with `rollout.mask_truncated`."""
    wins = jnp.full((3, 4, 4), 0.5).at[:, 0, -1].set(0.9).at[:, 1, -1].set(0.2)
    valid = A([1, 1, 1, 1], [0, 1, 1, 1], [1, 0, 1, 1]) > 0
    for fn in (experience.pair_against_last, experience.optimistic_pair):
        fields = fn(wins, valid)
        assert fields["keep"].tolist() == [True, False, False]
    assert experience.pair_against_last(wins, valid)["take"].tolist() == [[0, 1]] * 3


def test_numbers_out_of_range_are_refused():
    scores = A([1.0, 2.0])
    with pytest.raises(ValueError, match="alpha"):
        experience.top_share(scores, scores > 0, alpha=2.0)
    with pytest.raises(ValueError, match="beta must be > 0"):
        experience.rejection_sampled(scores, scores > 0, jnp.ones((1, 2, 2)), rejection_beta=0.0)


def test_importance_weights_are_those_of_the_responses_that_are_taken():
    """A*-PO's row reads one response of three; the policy has moved by log 1.5 at its tokens."""
    valid = jnp.ones((1, 3), bool)
    arrays = {
        "scores": A([1.0, 0.0, 0.5]),
        "valid": valid,
        "mask": jnp.ones((1, 3, 2), bool),
        "old_token_logps": jnp.zeros((1, 3, 2)).at[0, 0].set(math.log(1.5)),
        "sampler_token_logps": jnp.zeros((1, 3, 2)),
    }
    row = replace(get("a_star_po"), loss=losses.ppo_clip)  # per token
    plain, weighted = (
        experience_fields(row, arrays, kl_coef=None, importance_cap=cap)["advantages"]
        for cap in (0.0, 4.0)
    )
    assert plain.shape == (1, 1, 2)
    np.testing.assert_allclose(weighted, 1.5 * plain, rtol=1e-6)
