"""Losses that teach what not to say: NPO, gradient ascent, unlikelihood, D2O, CRINGE."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.losses.negative.ascent import gradient_ascent
from jalign.losses.negative.cringe import cringe, pairwise_cringe
from jalign.losses.negative.d2o import d2o
from jalign.losses.negative.npo import npo
from jalign.losses.negative.unlikelihood import unlikelihood
from jalign.losses.pairwise.dpo import dpo

A = lambda *x: jnp.array(x, jnp.float32)  # noqa: E731
PC, PR = A(-12, -20.5, -8.25, -31), A(-13.5, -18, -9, -29.5)
RC, RR = A(-12.5, -19, -9, -30), A(-12.75, -18.5, -8.5, -30.25)
NAN = math.nan

ratios = st.floats(-30, 30, width=32)
few = settings(max_examples=20, deadline=None)


def sig(x):
    return 1 / (1 + math.exp(-x))


def nll(x):
    """-log sigmoid(x)"""
    return math.log1p(math.exp(-x))


# ---- NPO and gradient ascent


def test_npo_value_and_gradient():
    logps, ref = A(-9.5, -4.0), A(-8.0, -5.25)
    out, metrics = npo(logps, ref, beta=0.5)
    np.testing.assert_allclose(out, [4 * nll(0.75), 4 * nll(-0.625)], rtol=1e-6)
    np.testing.assert_allclose(metrics["rejected_rewards"], [-0.75, 0.625])
    g = jax.grad(lambda x: npo(x, ref, beta=0.5)[0].sum())(logps)
    np.testing.assert_allclose(g, [2 * sig(-0.75), 2 * sig(0.625)], rtol=1e-5)


def test_npo_golden():
    np.testing.assert_allclose(npo(PR, RR, beta=0.1)[0].mean(), 13.873098, rtol=2e-6)


def test_gradient_ascent_value_and_gradient():
    out, metrics = gradient_ascent(A(-9.5, -4.0))
    np.testing.assert_array_equal(out, [-9.5, -4.0])
    assert metrics == {}
    g = jax.grad(lambda x: (A(3, 5) * gradient_ascent(x)[0]).sum())(A(-9.5, -4.0))
    np.testing.assert_array_equal(g, [3, 5])


@few
@given(st.lists(ratios, min_size=3, max_size=3))
def test_npo_with_beta_going_to_zero_has_the_gradient_of_gradient_ascent(d):
    logps, ref = A(*d) - 40, A(-40, -40, -40)
    ascent = jax.grad(lambda x: gradient_ascent(x)[0].sum())(logps)
    distance = [
        jnp.abs(jax.grad(lambda x, b=beta: npo(x, ref, beta=b)[0].sum())(logps) - ascent).max()
        for beta in (1e-2, 1e-4, 1e-6)
    ]
    # 2 sigmoid(beta d) - 1 is about beta d / 2
    for beta, off in zip((1e-2, 1e-4, 1e-6), distance, strict=True):
        assert off <= beta * 30 / 2 + 1e-6


@few
@given(st.lists(ratios, min_size=3, max_size=3), st.floats(0.01, 2))
def test_npo_is_dpo_without_the_chosen_response(d, beta):
    logps, ref, one = A(*d) - 40, A(-40, -41, -38), A(-1, -1, -1)
    value = npo(logps, ref, beta=beta)[0]
    np.testing.assert_allclose(value, 2 / beta * dpo(one, logps, one, ref, beta=beta)[0], rtol=1e-5)


# ---- unlikelihood

PROBS = jnp.array([[0.5, 0.2, 0.9], [0.3, 0.7, 0.1]])
THERE = jnp.array([[True, True, False], [True, True, True]])


def test_unlikelihood_value_and_gradient():
    logps = jnp.where(THERE, jnp.log(PROBS), NAN)
    out, metrics = unlikelihood(logps, THERE)
    expected = [-math.log(0.5 * 0.8), -math.log(0.7 * 0.3 * 0.9)]
    np.testing.assert_allclose(out, expected, rtol=1e-5)
    assert metrics == {}
    g = jax.grad(lambda x: unlikelihood(x, THERE)[0].sum())(logps)
    odds = [[0.5 / 0.5, 0.2 / 0.8, 0.0], [0.3 / 0.7, 0.7 / 0.3, 0.1 / 0.9]]
    np.testing.assert_allclose(g, odds, rtol=1e-5)


@pytest.mark.parametrize("logp", [0.0, -1e-9, -1e-7, -2400.0])
def test_unlikelihood_is_finite_where_a_token_is_certain_or_impossible(logp):
    value, g = jax.value_and_grad(lambda x: unlikelihood(x, THERE[:1])[0].sum())(
        A(logp, -1.0, NAN)[None]
    )
    assert np.isfinite(value) and np.isfinite(g).all()


def test_unlikelihood_presses_on_tokens_the_model_is_certain_of():
    logps, mask = A(0.0, -1e-7)[None], jnp.ones((1, 2), bool)
    g = jax.grad(lambda x: unlikelihood(x, mask)[0].sum())(logps)
    np.testing.assert_allclose(g, [[1e7, 1e7]], rtol=1e-5)


# ---- D2O

LIST = A(-4.0, -6.0, -9.5, NAN)[None]
REFS = A(-5.25, -6.5, -8.0, NAN)[None]  # log-ratios 1.25, 0.5, -1.5
RATINGS, VALID = A(0.5, -0.25, -2.0, NAN)[None], jnp.array([[True, True, True, False]])


def test_d2o_value_and_gradient():
    out, metrics = d2o(LIST, REFS, RATINGS, VALID, beta=0.5, alpha=0.2)
    h = 0.5 * (1.25 + 0.5) / 2 - 0.2 * -1.5
    np.testing.assert_allclose(out, [nll(h)], rtol=1e-6)
    np.testing.assert_allclose(metrics["rewards"], [[0.625, 0.25, -0.3, 0.0]], rtol=1e-6)
    g = jax.grad(lambda x: d2o(x, REFS, RATINGS, VALID, beta=0.5, alpha=0.2)[0].sum())(LIST)
    np.testing.assert_allclose(g, [[-0.25 * sig(-h)] * 2 + [0.2 * sig(-h), 0.0]], rtol=1e-5)


def test_d2o_takes_the_lowest_of_the_valid_ratings_for_the_negative():
    ratings = A(0.5, -3.0, -2.0, -9.0)[None]  # the last is not valid
    h = 0.5 * (1.25 - 1.5) / 2 - 0.2 * 0.5
    out = d2o(LIST, REFS, ratings, VALID, beta=0.5, alpha=0.2)[0]
    np.testing.assert_allclose(out, [nll(h)], rtol=1e-6)


def test_d2o_golden():
    logps, ref = jnp.append(PC, PR[0])[None], jnp.append(RC, RR[0])[None]
    ratings, valid = A(1, 1, 1, 1, 0)[None], jnp.ones((1, 5), bool)
    out = d2o(logps, ref, ratings, valid, beta=0.1, alpha=0.1)[0]
    np.testing.assert_allclose(out, [0.671511], rtol=2e-6)


@few
@given(st.lists(ratios, min_size=4, max_size=4), st.floats(0.01, 2))
def test_d2o_with_one_anchor_is_dpo_and_identical_anchors_change_nothing(d, beta):
    chosen, rejected, ref_chosen, ref_rejected = (A(x) - 40 for x in d)
    pair = dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta)[0]
    for anchors in (1, 3):
        logps, ref = (
            jnp.append(jnp.tile(a, anchors), b)[None]
            for a, b in ((chosen, rejected), (ref_chosen, ref_rejected))
        )
        ratings = jnp.append(jnp.ones(anchors), 0.0)[None]
        valid = jnp.ones((1, anchors + 1), bool)
        out = d2o(logps, ref, ratings, valid, beta=beta, alpha=beta)[0]
        np.testing.assert_allclose(out, pair, rtol=1e-5, atol=1e-6)


def test_d2o_without_anchors_or_without_anything_is_finite():
    for valid in ([True, False, False, False], [False] * 4):
        valid = jnp.array([valid])
        of = lambda x, valid=valid: d2o(x, REFS, RATINGS, valid)[0].sum()  # noqa: E731
        value, g = jax.value_and_grad(of)(LIST)
        assert np.isfinite(value) and np.isfinite(g).all()
        d = 1.25 if bool(valid.any()) else 0.0
        np.testing.assert_allclose(value, nll(-0.1 * d), rtol=1e-6)


# ---- CRINGE

TOKENS, OTHERS = A(-1.5, -0.5, NAN, -1.0, -2.0, -0.75), A(-2.0, -3.0, NAN, -3.0, -1.25, -4.0)
TOKENS, OTHERS = TOKENS.reshape(2, 3), OTHERS.reshape(2, 3)
MASK = jnp.array([[True, True, False], [True, True, True]])
FIRST = jnp.array([True, False])


def test_cringe_value_and_gradients():
    out, metrics = cringe(TOKENS, OTHERS, MASK, FIRST, alpha=0.7)
    bad = [nll(-2.0), nll(0.75), nll(-3.25)]  # -log sigmoid(competitor - token)
    np.testing.assert_allclose(out, [[1.5, 0.5, 0.0], [0.7 * x for x in bad]], rtol=1e-6)
    assert metrics == {}

    def of(tokens, others):
        return cringe(tokens, others, MASK, FIRST, alpha=0.7)[0].sum()

    g, g_other = jax.grad(of, argnums=(0, 1))(TOKENS, OTHERS)
    slopes = [0.7 * sig(2.0), 0.7 * sig(-0.75), 0.7 * sig(3.25)]
    np.testing.assert_allclose(g, [[-1, -1, 0], slopes], rtol=1e-5)
    np.testing.assert_allclose(g_other, [[0, 0, 0], [-x for x in slopes]], rtol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_cringe_is_zero_at_masked_places_whatever_the_label(first):
    label = jnp.array([first, not first])
    of = lambda x: cringe(x, OTHERS, MASK, label)[0]  # noqa: E731
    assert of(TOKENS)[0, 2] == 0 and of(TOKENS)[0, 1] != 0
    assert jax.grad(lambda x: of(x).sum())(TOKENS)[0, 2] == 0


def test_cringe_labels_may_be_numbers():
    np.testing.assert_array_equal(
        cringe(TOKENS, OTHERS, MASK, A(1, 0))[0], cringe(TOKENS, OTHERS, MASK, FIRST)[0]
    )


@few
@given(st.lists(st.floats(-8, 8, width=32), min_size=5, max_size=5), st.integers(1, 4))
def test_cringe_of_log_probabilities_is_cringe_of_logits(z, competitor):
    """-log(exp(z_s) / (exp(z_s) + exp(z_y))), token 0 against another."""
    logps = jax.nn.log_softmax(A(*z))
    yes = jnp.ones((1, 1), bool)
    out = cringe(logps[:1, None], logps[competitor, None, None], yes, ~yes[0])[0]
    expected = np.logaddexp(z[0], z[competitor]) - z[competitor]
    np.testing.assert_allclose(out, [[expected]], rtol=1e-5, atol=2e-6)


# The chosen response of one pair has 2 tokens and the rejected 3; M = -2 - -3.75 = 1.75.
CHOSEN, REJECTED = A(-1.5, -0.5, NAN)[None], A(-1.0, -2.0, -0.75)[None]
RIVALS, CHOSEN_MASK, REJECTED_MASK = A(-3.0, -1.25, -4.0)[None], MASK[:1], MASK[1:]
PAIR = (CHOSEN, REJECTED, RIVALS, CHOSEN_MASK, REJECTED_MASK)
NUMBERS = {"alpha": 0.7, "bias": 0.5, "temperature": 2.0}


def test_pairwise_cringe_value_and_gradients():
    out, metrics = pairwise_cringe(*PAIR, **NUMBERS)
    gate = sig((0.5 - 1.75) / 2)
    contrast = (nll(-2.0) + nll(0.75) + nll(-3.25)) / 3
    np.testing.assert_allclose(out, [gate * (2.0 / 2 + 0.7 * contrast)], rtol=1e-6)
    np.testing.assert_allclose(metrics["gate"], [gate], rtol=1e-6)
    np.testing.assert_allclose(metrics["chosen_rewards"], [-2.0])
    np.testing.assert_allclose(metrics["rejected_rewards"], [-3.75])

    def of(*arrays):
        return pairwise_cringe(*arrays, CHOSEN_MASK, REJECTED_MASK, **NUMBERS)[0].sum()

    g = jax.grad(of, argnums=(0, 1, 2))(CHOSEN, REJECTED, RIVALS)
    # Nothing flows through the gate.
    slopes = np.array([[gate * 0.7 * x / 3 for x in (sig(2.0), sig(-0.75), sig(3.25))]])
    np.testing.assert_allclose(g[0], [[-gate / 2, -gate / 2, 0]], rtol=1e-5)
    np.testing.assert_allclose(g[1], slopes, rtol=1e-5)
    np.testing.assert_allclose(g[2], -slopes, rtol=1e-5)


def test_pairwise_cringe_with_the_gate_open_is_the_mean_token_cringe_of_both_responses():
    out = pairwise_cringe(*PAIR, alpha=0.7, bias=1e4)[0]
    tokens = cringe(TOKENS, OTHERS, MASK, FIRST, alpha=0.7)[0]
    np.testing.assert_allclose(out, [tokens[0].sum() / 2 + tokens[1].sum() / 3], rtol=1e-6)


def test_pairwise_cringe_closes_its_gate_on_a_margin_beyond_the_bias():
    np.testing.assert_allclose(pairwise_cringe(*PAIR, bias=-300.0)[0], [0.0], atol=1e-30)


def test_pairwise_cringe_of_a_place_without_a_pair_is_finite():
    nothing = jnp.full((1, 3), NAN)
    masks = (jnp.zeros((1, 3), bool),) * 2
    of = lambda *x: pairwise_cringe(*x, *masks)[0].sum()  # noqa: E731
    value, g = jax.value_and_grad(of, argnums=(0, 1, 2))(nothing, nothing, nothing)
    assert value == 0 and all((x == 0).all() for x in g)


# ---- all of them


def test_extreme_log_probabilities_stay_finite():
    sums, refs = A(-2400, -1e-7, -400), A(-400, -2000, -2400)
    tokens, others = A(-2400, -1e-7, -1.0)[None], A(-1e-7, -2400, -2400)[None]
    all_there = jnp.ones((1, 3), bool)
    cases = [
        (lambda x: npo(x, refs, beta=2.0)[0], sums),
        (lambda x: gradient_ascent(x)[0], sums),
        (lambda x: unlikelihood(x, all_there)[0], tokens),
        (lambda x: d2o(x, refs[None], A(1, 1, 0)[None], all_there, beta=2.0)[0], sums[None]),
        (lambda x: cringe(x, others, all_there, FIRST[1:])[0], tokens),
        (lambda x: cringe(others, x, all_there, FIRST[1:])[0], tokens),
        (lambda x: pairwise_cringe(others, x, others, all_there, all_there)[0], tokens),
        (lambda x: pairwise_cringe(x, others, tokens, all_there, all_there)[0], tokens),
    ]
    for fn, x in cases:
        value, g = jax.value_and_grad(lambda x, fn=fn: fn(x).sum())(x)
        assert np.isfinite(value) and np.isfinite(g).all()


@pytest.mark.parametrize(
    ("fn", "arrays", "numbers"),
    [
        (npo, (PR, RR), {"beta": 0.0}),
        (d2o, (LIST, REFS, RATINGS, VALID), {"beta": 0.0}),
        (d2o, (LIST, REFS, RATINGS, VALID), {"alpha": 0.0}),
        (cringe, (TOKENS, OTHERS, MASK, FIRST), {"alpha": -1.0}),
        (pairwise_cringe, PAIR, {"alpha": -1.0}),
        (pairwise_cringe, PAIR, {"temperature": 0.0}),
    ],
)
def test_numbers_out_of_range_are_refused(fn, arrays, numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        fn(*arrays, **numbers)
