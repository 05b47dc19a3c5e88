"""LiPO and its siblings, RRHF, PRO, EXO and NCA on lists: by hand, golden values, identities."""

import inspect
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jalign.losses.listwise.exo import dpo_list, exo_list
from jalign.losses.listwise.lipo import lipo_lambda
from jalign.losses.listwise.nca import info_nca_list, nca_list
from jalign.losses.listwise.pro import pro
from jalign.losses.listwise.ranking import lipo_hinge, lipo_logistic, lipo_softmax, list_mle
from jalign.losses.listwise.rrhf import rrhf
from jalign.losses.pairwise.dpo import dpo
from jalign.losses.pairwise.exo import exo_pair
from jalign.losses.pairwise.nca import nca_pair
from jalign.losses.reward.listwise import plackett_luce

A = lambda *x: jnp.array([x], jnp.float32)  # noqa: E731
NAN = math.nan
WITH_REFERENCE = {
    f.__name__: f
    for f in (
        lipo_lambda,
        lipo_logistic,
        lipo_hinge,
        list_mle,
        lipo_softmax,
        exo_list,
        dpo_list,
        nca_list,
        info_nca_list,
    )
}
ALL = WITH_REFERENCE | {"rrhf": rrhf, "pro": pro}
IGNORE_TIES = ("lipo_lambda", "lipo_logistic", "lipo_hinge", "list_mle")

# One prompt, three responses and a place (the third) without one.
# Log-ratios d = 1, -1, 1.5; means -2, -1.125, -1.5. Best to worst: first, last, second.
LOGPS, REF, LENS = A(-4.0, -9.0, NAN, -6.0), A(-5.0, -8.0, NAN, -7.5), A(2.0, 8.0, 1.0, 4.0)
RATINGS, VALID = A(0.9, 0.2, NAN, 0.5), jnp.array([[True, True, False, True]])
S = [0.5, -0.5, 0.75]  # beta = 0.5, the missing one left out
HERE = np.array([0, 1, 3])
# a = first, b = second, c = last; the pairs in the order of RATINGS are a > b, a > c, c > b
R = [0.9, 0.2, 0.5]

# The inputs of the golden values, one prompt of four
PC, RC = A(-12.0, -20.5, -8.25, -31.0), A(-12.5, -19.0, -9.0, -30.0)
LW, PSI, YES = A(10.0, 16.0, 6.0, 25.0), A(0.9, 0.2, 0.6, 0.4), jnp.ones((1, 4), bool)


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


def arrays(name, logps=LOGPS, other=None, ratings=RATINGS, valid=VALID):
    other = (REF if name in WITH_REFERENCE else LENS) if other is None else other
    return logps, other, ratings, valid


def slopes(name, x, **kw):
    """d loss / d logps, and d loss / d ref_logps where there is a reference."""
    first = jax.grad(lambda logps: ALL[name](logps, *x[1:], **kw)[0].sum())(x[0])
    if name not in WITH_REFERENCE:
        return first
    second = jax.grad(lambda ref: ALL[name](x[0], ref, *x[2:], **kw)[0].sum())(x[1])
    np.testing.assert_array_equal(second, -first)  # only the log-ratio counts
    return first


def check(name, value, slope, rewards=S, **kw):
    """Value, gradient and rewards at the list above; nothing from or to the missing response."""
    x = arrays(name)
    loss, metrics = ALL[name](*x, **kw)
    close(loss, [value])
    close(metrics["rewards"][0, HERE], rewards)
    g = slopes(name, x, **kw)
    close(g[0, HERE], slope)
    assert g[0, 2] == 0 and metrics["rewards"][0, 2] == 0
    return metrics


# By hand


def test_lipo_lambda_value_and_gradient_by_hand():
    # sorted by s: last, first, second
    d1, d2, d3 = (1 / math.log(1 + rank) for rank in (1, 2, 3))
    ab = (2**0.9 - 2**0.2) * (d2 - d3)
    ac = (2**0.9 - 2**0.5) * (d1 - d2)
    cb = (2**0.5 - 2**0.2) * (d1 - d3)
    value = ab * nls(1.0) + ac * nls(-0.25) + cb * nls(1.25)
    ab, ac, cb = ab * sig(-1.0), ac * sig(0.25), cb * sig(-1.25)
    check("lipo_lambda", value, [-0.5 * (ab + ac), 0.5 * (ab + cb), 0.5 * (ac - cb)], beta=0.5)


def test_lipo_logistic_value_and_gradient_by_hand():
    ab, ac, cb = sig(-1.0), sig(0.25), sig(-1.25)
    value = nls(1.0) + nls(-0.25) + nls(1.25)
    check("lipo_logistic", value, [-0.5 * (ab + ac), 0.5 * (ab + cb), 0.5 * (ac - cb)], beta=0.5)


def test_lipo_hinge_value_and_gradient_by_hand():
    # beta = 0.45: leads 0.9, -0.225 and 1.125, the last beyond the margin
    value = (1 - 0.9) + (1 + 0.225)
    check("lipo_hinge", value, [-0.9, 0.45, 0.45], rewards=[0.45, -0.45, 0.675], beta=0.45)


def test_list_mle_value_and_gradient_by_hand():
    p, q = softmax([0.5, -0.5, 0.75]), softmax([-0.5, 0.75])  # all; those below the first
    value = -math.log(p[0]) - math.log(q[1])
    slope = [0.5 * (p[0] - 1), 0.5 * (p[1] + q[0]), 0.5 * (p[2] + q[1] - 1)]
    check("list_mle", value, slope, beta=0.5)


def test_lipo_softmax_value_and_gradient_by_hand():
    p = softmax(S)
    label = [0.9 / 1.6, 0.2 / 1.6, 0.5 / 1.6]
    value = -sum(y * math.log(x) for x, y in zip(p, label, strict=True))
    slope = [0.5 * (x - y) for x, y in zip(p, label, strict=True)]
    check("lipo_softmax", value, slope, beta=0.5)


def test_rrhf_value_and_gradient_by_hand():
    # p = -4 / 2, -9 / 8, -6 / 4: the second, rated worst, is the likeliest; the first, best, least
    ab, ac, cb = 2 - 1.125, 2 - 1.5, 1.5 - 1.125
    slope = [0.7 * -2 / 2 - 1 / 2, 0.7 * 2 / 8, 0]
    metrics = check(
        "rrhf", 0.7 * (ab + ac + cb) + 4 / 2, slope, rewards=[-2, -1.125, -1.5], rank_coef=0.7
    )
    close(metrics["rank_loss"], [ab + ac + cb])
    close(metrics["nll_loss"], [2.0])


def test_rrhf_with_half_the_length_by_hand():
    x = arrays("rrhf", logps=A(-4.75, -9.0, NAN, -6.0))
    p = [-4.75 / 2**0.5, -9 / 8**0.5, -6 / 4**0.5]  # the first stands below both, wrongly
    assert p[2] > p[1] > p[0]
    loss, metrics = rrhf(*x, rank_coef=0.7, length_exponent=0.5)
    close(metrics["rewards"][0, HERE], p)
    close(loss, [0.7 * (p[1] - p[0] + p[2] - p[0]) + 4.75 / 2])
    g = slopes("rrhf", x, rank_coef=0.7, length_exponent=0.5)
    close(g[0, HERE], [-1.4 / 2**0.5 - 1 / 2, 0.7 / 8**0.5, 0.7 / 4**0.5])


def test_pro_value_and_gradient_by_hand():
    # first place: temperatures 0.7 (second) and 0.4 (last), so 0.7 for the first itself;
    # second place (the last response): 0.3 against the second
    first = softmax([-2 * 0.7, -1.125 * 0.7, -1.5 * 0.4])
    second = softmax([-1.5 * 0.3, -1.125 * 0.3])
    rank = -math.log(first[0]) - math.log(second[0])
    sft = 0.1 * 2**2
    slope = [
        0.7 * (first[0] - 1) / 2 - sft,
        (0.7 * first[1] + 0.3 * second[1]) / 8,
        (0.4 * first[2] + 0.3 * (second[0] - 1)) / 4,
    ]
    metrics = check("pro", rank + sft * 4, slope, rewards=[-2, -1.125, -1.5], sft_coef=0.1)
    close(metrics["rank_loss"], [rank])


def test_exo_list_value_and_gradient_by_hand():
    f, q = softmax(S), softmax([r / 0.8 for r in R])
    value = sum(a * math.log(a / b) for a, b in zip(f, q, strict=True))
    slope = [0.5 * a * (math.log(a / b) - value) for a, b in zip(f, q, strict=True)]
    check("exo_list", value, slope, beta=0.5, reward_temperature=0.8)


@pytest.mark.parametrize("name", ["dpo_list", "info_nca_list"])
def test_dpo_list_and_info_nca_value_and_gradient_by_hand(name):
    f, q = softmax(S), softmax([r / 0.8 for r in R])
    value = -sum(b * math.log(a) for a, b in zip(f, q, strict=True))
    slope = [0.5 * (a - b) for a, b in zip(f, q, strict=True)]
    check(name, value, slope, beta=0.5, reward_temperature=0.8)


def test_nca_list_value_and_gradient_by_hand():
    w = softmax([r / 0.8 for r in R])
    value = sum(a * nls(s) + nls(-s) / 3 for a, s in zip(w, S, strict=True))  # 3 exist, not 4
    slope = [0.5 * (sig(s) / 3 - a * sig(-s)) for a, s in zip(w, S, strict=True)]
    check("nca_list", value, slope, beta=0.5, reward_temperature=0.8)


# Golden values


def test_golden_lipo_lambda():
    close(lipo_lambda(PC, RC, PSI, YES, beta=0.1)[0], [0.594345], rtol=2e-6)


def test_golden_plackett_luce_is_of_scores_of_beta_one_tenth():
    close(list_mle(PC, RC, PSI, YES, beta=0.1)[0], [2.948087], rtol=2e-6)
    close(plackett_luce(0.1 * (PC - RC), PSI, YES)[0], [2.948087], rtol=2e-6)


def test_golden_rrhf_rank_part():
    loss, metrics = rrhf(PC, LW, PSI, YES)
    close(metrics["rank_loss"], [0.228750], rtol=2e-6)
    close(loss, [0.228750 + 12 / 10], rtol=2e-6)


def test_golden_pro_rank_part_has_differences_of_psi_as_temperatures():
    loss, metrics = pro(PC, LW, PSI, YES)
    close(metrics["rank_loss"], [3.462789], rtol=2e-6)
    close(loss, [3.462789 + 0.05 * 3**2 * 12], rtol=2e-6)


# Identities

value = st.floats(-40, -0.5, width=32)
four = st.tuples(value, value, value, value)


def pair(x):
    logps, ref, yes = A(x[0], x[1]), A(x[2], x[3]), jnp.ones((1, 2), bool)
    split = logps[:, 0], logps[:, 1], ref[:, 0], ref[:, 1]
    return logps, ref, yes, split


@settings(max_examples=25, deadline=None)
@given(four, st.floats(0.01, 1.0), st.booleans())
def test_lists_of_two_are_dpo(x, beta, swapped):
    logps, ref, yes, (c, j, rc, rj) = pair(x)
    ratings = A(0.0, 1.0) if swapped else A(1.0, 0.0)
    side = (j, c, rj, rc) if swapped else (c, j, rc, rj)
    expected = dpo(*side, beta=beta)[0]
    for fn in (lipo_logistic, list_mle, lipo_softmax):
        np.testing.assert_allclose(
            fn(logps, ref, ratings, yes, beta=beta)[0], expected, rtol=1e-5, atol=1e-5
        )
    for fn in (dpo_list, info_nca_list):
        out = fn(logps, ref, ratings, yes, beta=beta, reward_temperature=1e-3)[0]
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(four, st.floats(0.01, 1.0))
def test_lipo_lambda_of_two_is_dpo_times_a_constant(x, beta):
    logps, ref, yes, split = pair(x)
    weight = (2**0.9 - 2**0.2) * (1 / math.log(2) - 1 / math.log(3))
    out = lipo_lambda(logps, ref, A(0.9, 0.2), yes, beta=beta)[0]
    np.testing.assert_allclose(out, weight * dpo(*split, beta=beta)[0], rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[value] * 8), st.floats(0.01, 1.0))
def test_lipo_with_equal_weights_is_dpo_on_all_pairs(x, beta):
    logps, ref, ratings = A(*x[:4]), A(*x[4:]), [0.3, 0.9, 0.1, 0.6]
    expected = sum(
        dpo(logps[:, i], logps[:, j], ref[:, i], ref[:, j], beta=beta)[0]
        for i in range(4)
        for j in range(4)
        if ratings[i] > ratings[j]
    )
    out = lipo_logistic(logps, ref, A(*ratings), YES, beta=beta)[0]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(four, st.floats(0.05, 0.5), st.floats(0.01, 0.45))
def test_lists_of_two_with_soft_rewards_are_exo_and_cdpo_of_a_pair(x, beta, e):
    logps, ref, yes, split = pair(x)
    ratings = A(math.log((1 - e) / e), 0.0)
    out = exo_list(logps, ref, ratings, yes, beta=beta)[0]
    expected = exo_pair(*split, beta=beta, label_smoothing=e)[0]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    out = dpo_list(logps, ref, ratings, yes, beta=beta)[0]
    expected = dpo(*split, beta=beta, label_smoothing=e)[0]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(four, st.floats(0.01, 1.0))
def test_nca_of_two_with_one_hot_labels_is_nca_pair(x, beta):
    logps, ref, yes, split = pair(x)
    out = nca_list(logps, ref, A(1.0, 0.0), yes, beta=beta, reward_temperature=1e-3)[0]
    np.testing.assert_allclose(out, nca_pair(*split, beta=beta)[0], rtol=1e-5, atol=1e-5)


def test_exo_is_zero_and_flat_where_the_policy_matches_the_rewards():
    logps = REF + 2 * RATINGS
    close(exo_list(logps, REF, RATINGS, VALID, beta=0.5)[0], [0.0])
    g = slopes("exo_list", (logps, REF, RATINGS, VALID), beta=0.5)
    np.testing.assert_allclose(g, np.zeros((1, 4)), atol=1e-6)


def test_nca_is_flat_where_rewards_are_the_log_of_n_times_the_label():
    w = softmax(R)
    d = jnp.zeros((1, 4)).at[0, HERE].set(jnp.array([math.log(3 * a) / 0.5 for a in w]))
    g = slopes("nca_list", (jnp.where(VALID, REF, 0.0) + d, REF, RATINGS, VALID), beta=0.5)
    np.testing.assert_allclose(g, np.zeros((1, 4)), atol=1e-6)


# Order, ties, missing responses


@pytest.mark.parametrize("name", ALL)
def test_the_place_in_the_list_does_not_matter(name):
    order, x = np.array([3, 1, 0, 2]), arrays(name)
    moved = tuple(v[:, order] for v in x)
    close(ALL[name](*moved)[0], ALL[name](*x)[0])
    close(slopes(name, moved), slopes(name, x)[:, order])


@pytest.mark.parametrize("name", ALL)
def test_a_missing_response_counts_as_if_the_list_were_shorter(name):
    x = arrays(name)
    short = tuple(v[:, HERE] for v in x)
    close(ALL[name](*x)[0], ALL[name](*short)[0])
    close(slopes(name, x)[:, HERE], slopes(name, short))


@pytest.mark.parametrize("name", ALL)
def test_lists_without_any_or_with_one_response_have_finite_gradients(name):
    none = jnp.zeros((1, 4), bool)
    x = arrays(name, A(NAN, NAN, NAN, NAN), ratings=A(NAN, NAN, NAN, NAN), valid=none)
    loss, metrics = ALL[name](*x)
    np.testing.assert_array_equal(loss, [0.0])
    np.testing.assert_array_equal(metrics["rewards"], np.zeros((1, 4)))
    np.testing.assert_array_equal(slopes(name, x), np.zeros((1, 4)))
    one = none.at[0, 1].set(True)
    x = arrays(name, valid=one)
    loss, g = ALL[name](*x)[0], slopes(name, x)
    assert np.isfinite(loss).all() and np.isfinite(g).all()
    alone = {"rrhf": 9 / 8, "nca_list": nls(-0.01) + nls(0.01)}  # all others compare
    close(loss, [alone.get(name, 0.0)])


@pytest.mark.parametrize("name", IGNORE_TIES)
def test_equal_ratings_form_no_pair(name):
    x = arrays(name, ratings=A(0.5, 0.5, NAN, 0.5))
    np.testing.assert_array_equal(ALL[name](*x)[0], [0.0])
    np.testing.assert_array_equal(slopes(name, x), np.zeros((1, 4)))


def test_equal_ratings_form_no_pair_in_the_rank_terms():
    for fn in (rrhf, pro):
        _, metrics = fn(LOGPS, LENS, A(0.5, 0.5, NAN, 0.5), VALID)
        np.testing.assert_array_equal(metrics["rank_loss"], [0.0])


def test_two_equals_above_a_third_are_each_set_against_it_alone():
    x = arrays("list_mle", ratings=A(0.9, 0.2, NAN, 0.9))
    close(list_mle(*x, beta=0.5)[0], [nls(1.0) + nls(1.25)])
    x = arrays("pro", ratings=A(0.9, 0.2, NAN, 0.9))
    rank = nls(0.7 * (-2 + 1.125)) + nls(0.7 * (-1.5 + 1.125))
    close(pro(*x)[1]["rank_loss"], [rank])


@pytest.mark.parametrize("name", [*IGNORE_TIES, "rrhf"])
def test_only_the_order_of_ratings_matters_where_it_is_said_so(name):
    x, other = arrays(name), arrays(name, ratings=A(30.0, -2.0, NAN, 0.1))
    same = np.allclose(ALL[name](*x)[0], ALL[name](*other)[0])
    assert same == (name != "lipo_lambda")


def test_the_supervised_terms_take_the_first_of_several_best():
    x = LOGPS, LENS, A(0.9, 0.2, NAN, 0.9), VALID
    close(rrhf(*x, rank_coef=0.0)[0], [4 / 2])
    with_sft, without = pro(*x, sft_coef=0.1)[0], pro(*x, sft_coef=0.0)[0]
    close(with_sft - without, [0.1 * 4 * 4])


def test_lipo_lambda_learns_from_a_policy_that_equals_its_reference():
    g = slopes("lipo_lambda", arrays("lipo_lambda", logps=REF))
    assert (np.asarray(g)[0, HERE] != 0).all()


def test_lipo_lambda_ranks_only_responses_that_exist():
    # were the missing response (s = 0) ranked, the second would stand fourth
    x = arrays("lipo_lambda")
    other = arrays("lipo_lambda", logps=LOGPS.at[0, 2].set(50.0), other=REF.at[0, 2].set(0.0))
    close(lipo_lambda(*x)[0], lipo_lambda(*other)[0], rtol=0)


def test_negative_ratings_count_as_none_in_the_softmax():
    x = arrays("lipo_softmax", ratings=A(0.9, -0.3, NAN, 0.5))
    p = softmax(S)
    close(lipo_softmax(*x, beta=0.5)[0], [-(0.9 * math.log(p[0]) + 0.5 * math.log(p[2])) / 1.4])
    for nothing in (A(0.0, 0.0, NAN, 0.0), A(-1.0, -2.0, NAN, 0.0)):
        x = arrays("lipo_softmax", ratings=nothing)
        np.testing.assert_array_equal(lipo_softmax(*x)[0], [0.0])
        np.testing.assert_array_equal(slopes("lipo_softmax", x), np.zeros((1, 4)))


# Numerics


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("logps", [(-2400.0, -1e-7, -1200.0, -3.0), (-1e-7, -2400.0, -1e-7, -9.0)])
@pytest.mark.parametrize("ratings", [(0.9, 0.2, 0.5, 0.1), (0.1, 0.2, 0.5, 0.9)])
def test_extreme_log_probabilities_stay_finite(name, logps, ratings):
    other = A(-1e-7, -2000.0, -2.0, -2000.0) if name in WITH_REFERENCE else LENS
    x = A(*logps), other, A(*ratings), YES
    kw = {"beta": 1.0} if name in WITH_REFERENCE else {}
    assert np.isfinite(ALL[name](*x, **kw)[0]).all()
    assert np.isfinite(slopes(name, x, **kw)).all()


@pytest.mark.parametrize("name", ALL)
def test_bfloat16_inputs_are_computed_in_float32(name):
    low = arrays(name)
    low = low[0].astype(jnp.bfloat16), low[1].astype(jnp.bfloat16), *low[2:]
    high = low[0].astype(jnp.float32), low[1].astype(jnp.float32), *low[2:]
    assert ALL[name](*low)[0].dtype == jnp.float32
    np.testing.assert_array_equal(ALL[name](*low)[0], ALL[name](*high)[0])


@pytest.mark.parametrize("name", ALL)
def test_numbers_may_be_traced(name):
    parameters = inspect.signature(ALL[name]).parameters.values()
    numbers = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    plain = ALL[name](*arrays(name), **numbers)[0]
    jaxtyping.config.update("jaxtyping_disable", True)  # the annotation says float
    try:
        traced = jax.jit(lambda n: ALL[name](*arrays(name), **n)[0])(numbers)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    close(traced, plain)


WRONG = [(name, {"beta": 0.0}) for name in WITH_REFERENCE] + [
    *((name, {"reward_temperature": 0.0}) for name in ("exo_list", "dpo_list")),
    *((name, {"reward_temperature": -1.0}) for name in ("nca_list", "info_nca_list")),
    ("rrhf", {"rank_coef": -0.1}),
    ("rrhf", {"length_exponent": -0.1}),
    ("pro", {"sft_coef": -0.1}),
]


@pytest.mark.parametrize("name, wrong", WRONG)
def test_numbers_out_of_range_are_refused(name, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ALL[name](*arrays(name), **wrong)
