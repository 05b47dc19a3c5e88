"""Losses of reward models: by hand, golden values, identities; and what is read off the models."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.losses.reward.bradley_terry import (
    bradley_terry,
    bradley_terry_margin,
    bradley_terry_soft,
)
from jalign.losses.reward.listwise import k_wise, pick_best, plackett_luce
from jalign.losses.reward.normalize import fit_normalization
from jalign.losses.reward.outcome import outcome
from jalign.losses.reward.preference import (
    pair_rm,
    pointwise_from_pairwise,
    preference_ab,
    symmetrised,
)
from jalign.losses.reward.process import (
    potential_differences,
    process_reward,
    step_last,
    step_min,
    step_product,
)
from jalign.losses.reward.regression import multi_attribute, score_difference, score_regression
from jalign.losses.reward.token_level import token_bradley_terry

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
NAN = math.nan
C, J = A(1.5, -0.25), A(0.25, 0.75)  # scores of two pairs: ahead by 1.25, behind by 1
LISTS = {f.__name__: f for f in (k_wise, pick_best, plackett_luce)}

# One prompt, three responses and a place (the third) without one; first, last, second in order.
SCORES, RATINGS = A([0.5, 1.25, NAN, -0.75]), A([0.9, 0.2, NAN, 0.5])
VALID = jnp.array([[True, True, False, True]])
HERE = np.array([0, 1, 3])

# Two responses with three and two scored tokens or steps
TOKENS = A([1.0, -2.0, 0.5, NAN], [-0.25, 3.0, NAN, NAN])
MASK = jnp.array([[True, True, True, False], [True, True, False, False]])


def sig(x):
    return 1 / (1 + math.exp(-x))


def nls(x):
    """-log sigmoid(x)"""
    return math.log1p(math.exp(-x))


def softmax(x):
    total = sum(math.exp(v) for v in x)
    return [math.exp(v) / total for v in x]


def close(value, expected, rtol=1e-5):
    np.testing.assert_allclose(value, expected, rtol=rtol)


def grads(fn, *args):
    """Of the summed loss, with respect to every array of floats."""
    at = [i for i, x in enumerate(args) if x.dtype != bool]
    return jax.grad(lambda *a: fn(*a)[0].sum(), argnums=at)(*args)


# Pairs, by hand


def test_bradley_terry_margin_value_and_gradient_by_hand():
    margin = A(2 / 3, 3.0)
    z = [1.25 - 2 / 3, -1 - 3]
    loss, metrics = bradley_terry_margin(C, J, margin)
    close(loss, [nls(x) for x in z])
    close(metrics["chosen_rewards"], C)
    close(metrics["rejected_rewards"], J)
    down = np.array([sig(-x) for x in z])
    for g, sign in zip(grads(bradley_terry_margin, C, J, margin), (-1, 1, 1), strict=True):
        close(g, sign * down)


def test_bradley_terry_soft_value_and_gradient_by_hand():
    prob = A(0.8, 0.3)
    loss, metrics = bradley_terry_soft(C, J, prob)
    close(loss, [0.8 * nls(1.25) + 0.2 * nls(-1.25), 0.3 * nls(-1) + 0.7 * nls(1)])
    close(metrics["chosen_rewards"], C)
    close(metrics["rejected_rewards"], J)
    slope = np.array([sig(1.25) - 0.8, sig(-1) - 0.3])
    chosen, rejected, _ = grads(bradley_terry_soft, C, J, prob)
    close(chosen, slope)
    close(rejected, -slope)


def test_score_difference_value_and_gradient_by_hand():
    margin = A(2.0, 0.5)
    loss, metrics = score_difference(C, J, margin)
    close(loss, [(1.25 - 2) ** 2, (-1 - 0.5) ** 2])
    close(metrics["chosen_rewards"], C)
    close(metrics["rejected_rewards"], J)
    chosen, rejected, _ = grads(score_difference, C, J, margin)
    close(chosen, [-1.5, -3])
    close(rejected, [1.5, 3])


def test_token_bradley_terry_value_and_gradient_by_hand():
    rejected = A([0.25, NAN, NAN, NAN], [1.0, -0.5, 2.5, NAN])
    other = jnp.array([[True, False, False, False], [True, True, True, False]])
    x = TOKENS, rejected, MASK, other
    z = [(1 - 2 + 0.5) - 0.25, (-0.25 + 3) - (1 - 0.5 + 2.5)]
    loss, metrics = token_bradley_terry(*x)
    close(loss, [nls(v) for v in z])
    close(metrics["chosen_rewards"], [-0.5, 2.75])
    close(metrics["rejected_rewards"], [0.25, 3.0])
    up, down = grads(token_bradley_terry, *x)
    a, b = sig(-z[0]), sig(-z[1])
    close(up, [[-a, -a, -a, 0], [-b, -b, 0, 0]])
    close(down, [[a, 0, 0, 0], [b, b, b, 0]])


def test_pair_rm_value_and_gradient_by_hand():
    loss, metrics = pair_rm(C, J)
    close(loss, [(nls(1.5) + nls(-0.25)) / 2, (nls(-0.25) + nls(-0.75)) / 2])
    close(metrics["chosen_rewards"], C)
    close(metrics["rejected_rewards"], J)
    chosen, rejected = grads(pair_rm, C, J)
    close(chosen, [-sig(-1.5) / 2, -sig(0.25) / 2])
    close(rejected, [sig(0.25) / 2, sig(0.75) / 2])


def test_preference_ab_value_and_gradient_by_hand():
    loss, metrics = preference_ab(A(-0.5, -2.25))
    close(loss, [0.5, 2.25])
    close(metrics["answer_prob"], [math.exp(-0.5), math.exp(-2.25)])
    close(grads(preference_ab, A(-0.5, -2.25))[0], [-1, -1])


# Single responses, by hand


def test_score_regression_value_and_gradient_by_hand():
    loss, metrics = score_regression(C, A(0.25, 1.0))
    close(loss, [1.25**2, 1.25**2])
    close(metrics["rewards"], C)
    close(grads(score_regression, C, A(0.25, 1.0))[0], [2.5, -2.5])


def test_multi_attribute_value_and_gradient_by_hand():
    scores = A([1.5, -0.5, 3.0], [0.25, 2.0, -1.0], [1.0, 2.0, 3.5])
    ratings = A([1.0, NAN, 5.0], [NAN, NAN, 0.5], [NAN, NAN, NAN])
    loss, metrics = multi_attribute(scores, ratings)
    close(loss, [(0.5**2 + 2**2) / 2, 1.5**2, 0])
    close(metrics["rewards"], [4 / 3, 1.25 / 3, 6.5 / 3])
    g = jax.grad(lambda s: multi_attribute(s, ratings)[0].sum())(scores)
    close(g, [[0.5, 0, -2], [0, 0, -3], [0, 0, 0]])


def test_outcome_value_and_gradient_by_hand():
    loss, metrics = outcome(C, A(0.8, 0.3))
    close(loss, [0.8 * nls(1.5) + 0.2 * nls(-1.5), 0.3 * nls(-0.25) + 0.7 * nls(0.25)])
    close(metrics["rewards"], C)
    close(grads(outcome, C, A(0.8, 0.3))[0], [sig(1.5) - 0.8, sig(-0.25) - 0.3])


def test_outcome_takes_true_and_false_as_one_and_zero():
    loss, _ = outcome(C, jnp.array([True, False]))
    close(loss, [nls(1.5), nls(0.25)])


def test_process_reward_value_and_gradient_by_hand():
    scores, labels = A([1.5, -0.25], [0.75, -2.0]), A([1.0, 0.3], [0.0, 0.8])
    loss, metrics = process_reward(scores, labels)
    close(
        loss,
        [
            [nls(1.5), 0.3 * nls(-0.25) + 0.7 * nls(0.25)],
            [nls(-0.75), 0.8 * nls(-2) + 0.2 * nls(2)],
        ],
    )
    close(metrics["step_prob"], [[sig(1.5), sig(-0.25)], [sig(0.75), sig(-2)]])
    np.testing.assert_array_equal(metrics["step_accuracy"], [[1, 1], [0, 0]])
    g = grads(process_reward, scores, labels)[0]
    close(g, [[sig(1.5) - 1, sig(-0.25) - 0.3], [sig(0.75), sig(-2) - 0.8]])


# Lists, by hand


def check(fn, value, slope):
    loss, metrics = fn(SCORES, RATINGS, VALID)
    close(loss, [value])
    close(metrics["rewards"], [[0.5, 1.25, 0, -0.75]])
    g = jax.grad(lambda s: fn(s, RATINGS, VALID)[0].sum())(SCORES)
    close(g, [[slope[0], slope[1], 0, slope[2]]])


def test_k_wise_value_and_gradient_by_hand():
    ab, ac, cb = -0.75, 1.25, -2.0  # leads of the better one in each pair
    down = [sig(-x) / 3 for x in (ab, ac, cb)]
    slope = [-down[0] - down[1], down[0] + down[2], down[1] - down[2]]
    check(k_wise, (nls(ab) + nls(ac) + nls(cb)) / 3, slope)


def test_pick_best_value_and_gradient_by_hand():
    p = softmax([0.5, 1.25, -0.75])
    check(pick_best, -math.log(p[0]), [p[0] - 1, p[1], p[2]])


def test_plackett_luce_value_and_gradient_by_hand():
    p, q = softmax([0.5, 1.25, -0.75]), softmax([1.25, -0.75])
    slope = [p[0] - 1, p[1] + q[0], p[2] + q[1] - 1]
    check(plackett_luce, -math.log(p[0]) - math.log(q[1]), slope)


# Golden values


def test_golden_bradley_terry_with_a_margin():
    chosen, rejected = A(-12, -20.5, -8.25, -31) / 10, A(-13.5, -18, -9, -29.5) / 10
    out = bradley_terry_margin(chosen, rejected, A(1, 2 / 3, 1 / 3, 0))[0]
    close(out.mean(), 1.015122, rtol=2e-6)


# Identities

score = st.floats(-30, 30, width=32)
prob = st.floats(0, 1, width=32)  # exact in float32, for 1 - p magnifies what p was rounded by


@pytest.mark.parametrize("name", LISTS)
@settings(max_examples=25, deadline=None)
@given(score, score, st.booleans())
def test_lists_of_two_are_bradley_terry(name, a, b, first):
    ratings = A([1.0, 0.0]) if first else A([0.0, 1.0])
    out = LISTS[name](A([a, b]), ratings, jnp.ones((1, 2), bool))[0]
    expected = bradley_terry(A(a if first else b), A(b if first else a))[0]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(score, score, prob)
def test_no_margin_and_sure_labels_are_bradley_terry(a, b, p):
    plain, other = bradley_terry(A(a), A(b))[0], bradley_terry(A(b), A(a))[0]
    close(bradley_terry_margin(A(a), A(b), A(0.0))[0], plain)
    close(bradley_terry_soft(A(a), A(b), A(1.0))[0], plain)
    close(bradley_terry_soft(A(a), A(b), A(0.0))[0], other)
    close(bradley_terry_soft(A(a), A(b), A(p))[0], p * plain + (1 - p) * other)


@settings(max_examples=25, deadline=None)
@given(score, score, prob, score)
def test_only_differences_of_scores_count_in_pairs(a, b, p, shift):
    for fn, x in ((bradley_terry_margin, 0.5), (bradley_terry_soft, p), (score_difference, 0.5)):
        here, there = fn(A(a), A(b), A(x))[0], fn(A(a + shift), A(b + shift), A(x))[0]
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=2e-5)  # a + shift is rounded


@settings(max_examples=25, deadline=None)
@given(score, prob)
def test_a_response_of_one_step_has_the_same_outcome_and_process_loss(s, y):
    np.testing.assert_array_equal(process_reward(A([s]), A([y]))[0][0], outcome(A(s), A(y))[0])


@settings(max_examples=25, deadline=None)
@given(score, score)
def test_token_bradley_terry_of_one_token_is_bradley_terry(a, b):
    yes = jnp.ones((1, 1), bool)
    out = token_bradley_terry(A([a]), A([b]), yes, yes)[0]
    np.testing.assert_array_equal(out, bradley_terry(A(a), A(b))[0])


def test_plackett_luce_is_the_sum_of_picks_of_the_best_of_those_left():
    scores, ratings, left = (
        A([0.5, 1.25, 0.3, -0.75]),
        A([0.9, 0.2, 0.7, 0.5]),
        np.ones((1, 4), bool),
    )
    total = 0
    for k in (0, 2, 3):
        total += float(pick_best(scores, ratings, jnp.asarray(left))[0][0])
        left[0, k] = False
    close(plackett_luce(scores, ratings, jnp.ones((1, 4), bool))[0], [total])


# Ties and missing responses


@pytest.mark.parametrize("name", LISTS)
def test_equal_ratings_form_no_pair(name):
    x = SCORES, A([0.5, 0.5, NAN, 0.5]), VALID
    np.testing.assert_array_equal(LISTS[name](*x)[0], [0.0])
    g = jax.grad(lambda s: LISTS[name](s, *x[1:])[0].sum())(SCORES)
    np.testing.assert_array_equal(g, np.zeros((1, 4)))


def test_two_equals_above_a_third_are_each_set_against_it_alone():
    x = SCORES, A([0.9, 0.2, NAN, 0.9]), VALID
    pairs = nls(0.5 - 1.25) + nls(-0.75 - 1.25)
    close(k_wise(*x)[0], [pairs / 2])
    close(plackett_luce(*x)[0], [pairs])
    p = softmax([0.5, 1.25, -0.75])
    close(pick_best(*x)[0], [-math.log(p[0] + p[2])])


@pytest.mark.parametrize("name", LISTS)
def test_the_place_in_the_list_does_not_matter(name):
    order, x = np.array([3, 1, 0, 2]), (SCORES, RATINGS, VALID)
    close(LISTS[name](*(v[:, order] for v in x))[0], LISTS[name](*x)[0])


@pytest.mark.parametrize("name", LISTS)
def test_a_missing_response_counts_as_if_the_list_were_shorter(name):
    x = SCORES, RATINGS, VALID
    close(LISTS[name](*(v[:, HERE] for v in x))[0], LISTS[name](*x)[0])


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("there", [[], [1]])
def test_lists_without_any_or_with_one_response_have_loss_zero(name, there):
    valid = jnp.zeros((1, 4), bool).at[0, jnp.array(there, int)].set(True)
    scores = jnp.where(valid, SCORES, NAN)
    x = jnp.where(valid, RATINGS, NAN), valid
    np.testing.assert_array_equal(LISTS[name](scores, *x)[0], [0.0])
    g = jax.grad(lambda s: LISTS[name](s, *x)[0].sum())(scores)
    np.testing.assert_array_equal(g, np.zeros((1, 4)))


# Numerics


@pytest.mark.parametrize("far", [2000.0, 1e-7])
@pytest.mark.parametrize("signs", [(1, -1), (-1, 1)])
def test_extreme_scores_stay_finite(far, signs):
    c, j = A(signs[0] * far), A(signs[1] * far)
    both, yes = A([signs[0] * far, signs[1] * far]), jnp.ones((1, 2), bool)
    cases = [
        (bradley_terry_margin, c, j, A(1.0)),
        (bradley_terry_soft, c, j, A(0.8)),
        (score_difference, c, j, A(0.8)),
        (pair_rm, c, j),
        (preference_ab, A(-far)),
        (outcome, c, A(0.3)),
        (process_reward, both, A([0.3, 1.0])),
        (token_bradley_terry, both, -both, yes, yes),
        (score_regression, c, A(0.5)),
        (multi_attribute, both, A([0.5, NAN])),
        *((fn, both, A([0.9, 0.1]), yes) for fn in LISTS.values()),
    ]
    for fn, *x in cases:
        assert np.isfinite(fn(*x)[0]).all(), fn.__name__
        g = jax.grad(lambda s, fn=fn, x=x: fn(s, *x[1:])[0].sum())(x[0])
        assert np.isfinite(g).all(), fn.__name__


def test_bfloat16_scores_are_computed_in_float32():
    low = C.astype(jnp.bfloat16)
    for fn, *x in (
        (bradley_terry_margin, J, C),
        (bradley_terry_soft, J, A(0.8, 0.3)),
        (score_difference, J, C),
        (pair_rm, J),
        (preference_ab,),
        (outcome, A(0.3, 1.0)),
        (score_regression, J),
    ):
        out = fn(low, *x)[0]
        assert out.dtype == jnp.float32
        np.testing.assert_array_equal(out, fn(low.astype(jnp.float32), *x)[0])


# What is read off the models


def test_step_product_min_and_last_by_hand():
    p = [[sig(1), sig(-2), sig(0.5)], [sig(-0.25), sig(3)]]
    close(step_product(TOKENS, MASK), [math.prod(p[0]), math.prod(p[1])])
    close(step_min(TOKENS, MASK), [sig(-2), sig(-0.25)])
    close(step_last(TOKENS, MASK), [sig(0.5), sig(3)])


def test_masked_places_count_in_no_aggregate_where_all_steps_are_surely_right():
    for elsewhere in (NAN, -9.0, 0.0, 9.0):  # 0 would be a probability of 1 / 2
        x = A([2.0, 1.5, elsewhere]), jnp.array([[True, True, False]])
        close(step_product(*x), [sig(2) * sig(1.5)])
        close(step_min(*x), [sig(1.5)])
        close(step_last(*x), [sig(1.5)])


def test_a_response_without_steps_ranks_last():
    for fn in (step_product, step_min, step_last):
        np.testing.assert_array_equal(fn(TOKENS, jnp.zeros((2, 4), bool)), [0, 0])


def test_potential_differences_add_up_to_the_last_score():
    out = potential_differences(TOKENS, MASK)
    close(out, [[1, -3, 2.5, 0], [-0.25, 3.25, 0, 0]])
    close(out.sum(-1), [0.5, 3.0])


def test_symmetrised_probabilities_of_both_orders_add_up_to_one():
    p_ab, p_ba = A(0.9, 0.4), A(0.7, 0.1)
    close(symmetrised(p_ab, p_ba), [0.6, 0.65])
    close(symmetrised(p_ab, p_ba) + symmetrised(p_ba, p_ab), [1, 1])


def test_pointwise_from_pairwise_is_the_logit_and_finite_at_certainty():
    close(pointwise_from_pairwise(A(0.8, 0.3)), [math.log(4), math.log(3 / 7)])
    ends = pointwise_from_pairwise(A(0.0, 1.0))
    close(ends, [-math.log(1e6), math.log(1e6)], rtol=2e-3)  # 1 - 1e-6 is rounded
    scores = A(0.7, -1.5)
    close(pointwise_from_pairwise(jax.nn.sigmoid(scores)), scores)


def test_normalized_scores_have_the_wanted_mean_and_spread():
    scores = A(1.5, -0.25, 4.0, 2.75)
    mean = (1.5 - 0.25 + 4 + 2.75) / 4
    spread = math.sqrt(sum((x - mean) ** 2 for x in (1.5, -0.25, 4.0, 2.75)) / 4)
    gain, bias = fit_normalization(scores, mean=0.5, std=2.0)
    close(gain, 2 / spread)
    close(bias, 0.5 - 2 / spread * mean)
    close((gain * scores + bias).mean(), 0.5)
    close((gain * scores + bias).std(), 2.0)
    close(fit_normalization(scores)[0], 1 / spread)


def test_scores_that_cannot_be_normalized_are_refused():
    with pytest.raises(ValueError, match="scores must differ"):
        fit_normalization(A(1.5, 1.5))
    with pytest.raises(ValueError, match="std must be > 0"):
        fit_normalization(C, std=0.0)
    gain, _ = jax.jit(fit_normalization)(A(1.5, 1.5))
    assert np.isfinite(gain)
