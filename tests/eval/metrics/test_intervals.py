"""Wilson's interval, the sign test, Holm's correction and the bootstrap."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from jalign.eval import metrics
from tests.eval.metrics._oracles import STATISTICS


@pytest.mark.parametrize("row", STATISTICS["wilson"])
def test_wilson_equals_statsmodels(row):
    successes, trials, confidence, low, high = row
    result = metrics.wilson(successes, trials, confidence=confidence)
    np.testing.assert_allclose(result, [successes / trials, low, high], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("row", STATISTICS["sign_test"])
def test_the_sign_test_equals_scipys_binomial_test(row):
    wins, losses, p = row
    np.testing.assert_allclose(metrics.sign_test(wins, losses), p, rtol=1e-12)


def test_the_sign_test_by_hand_and_without_games():
    # 4 of 5: both tails hold 0, 1, 4 and 5 wins, (1 + 5 + 5 + 1) / 32
    assert metrics.sign_test(4, 1) == pytest.approx(12 / 32)
    assert metrics.sign_test(0, 0) == 1.0


def test_holm_equals_statsmodels():
    oracle = STATISTICS["holm"]
    result = metrics.holm(oracle["p"], alpha=oracle["alpha"])
    np.testing.assert_allclose(result.adjusted, oracle["adjusted"], rtol=1e-12)
    assert result.reject.tolist() == oracle["reject"]


def test_holm_does_not_depend_on_the_order_and_never_exceeds_bonferroni():
    p = np.array([0.004, 0.03, 0.011, 0.6])
    adjusted = metrics.holm(p).adjusted
    np.testing.assert_allclose(adjusted, [0.016, 0.06, 0.033, 0.6], rtol=1e-12)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(metrics.holm(p[order]).adjusted, adjusted[order])
    assert (adjusted <= np.minimum(4 * p, 1)).all()


def test_the_bootstrap_of_three_values_is_the_enumeration_of_their_resamples():
    values = np.array([0.0, 1.0, 5.0])
    means = sorted(np.mean(draw) for draw in itertools.product(values, repeat=3))
    result = metrics.bootstrap(values, samples=200_000, confidence=0.8)
    # quantiles of the 27 equally likely means; no mean lies within 0.01 of 10 or 90 percent
    expected = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    np.testing.assert_allclose(result, [2.0, *expected], rtol=1e-12)


def test_the_paired_bootstrap_agrees_with_scipys():
    oracle = STATISTICS["paired_bootstrap"]
    a, b = np.array(oracle["a"]), np.array(oracle["b"])
    result = metrics.paired_bootstrap(a, b, samples=100_000)
    assert result.estimate.value == pytest.approx((a - b).mean(), rel=1e-12)
    # 100,000 resamples place the ends within about a hundredth of a standard error
    error = 0.03 * oracle["standard_error"]
    np.testing.assert_allclose(result.estimate[1:], oracle["interval"], atol=error)


def test_swapping_the_sides_of_a_pair_mirrors_the_difference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.5, 1, 40), rng.normal(0, 1, 40)
    one, other = metrics.paired_bootstrap(a, b), metrics.paired_bootstrap(b, a)
    np.testing.assert_allclose(one.estimate, [-x for x in np.take(other.estimate, [0, 2, 1])])
    assert one.p_value == other.p_value


def test_pairing_removes_what_both_sides_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 10, 50)
    a, b = shared + rng.normal(0.3, 0.1, 50), shared
    result = metrics.paired_bootstrap(a, b)
    assert result.estimate.low > 0 and result.p_value < 0.01
    assert metrics.bootstrap(a).high - metrics.bootstrap(a).low > 10 * (
        result.estimate.high - result.estimate.low
    )


def test_the_least_p_is_that_of_no_resample_beyond_0():
    assert metrics.paired_bootstrap([2.0, 3.0, 5.0], [1.0, 1.5, 1.0], samples=99).p_value == 0.02


def test_equal_sides_differ_by_nothing():
    result = metrics.paired_bootstrap([1.0, 2.0, 4.0], [1.0, 2.0, 4.0])
    assert result == ((0.0, 0.0, 0.0), 1.0)


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(1)
    prompts = rng.normal(0, 0.1, 200)
    agree, disagree = np.tile(prompts, (4, 1)), prompts + np.array([[-1.0], [0.5], [1.2], [-0.7]])
    narrow, wide = metrics.bootstrap(agree), metrics.bootstrap(disagree)
    one = metrics.bootstrap(prompts)
    assert narrow.high - narrow.low == pytest.approx(one.high - one.low)
    assert wide.high - wide.low > 20 * (one.high - one.low)


def test_a_ratio_is_of_sums_and_not_a_mean_of_ratios():
    result = metrics.bootstrap_ratio([2.0, 9.0], [1.0, 10.0], samples=10_000, confidence=0.8)
    # a quarter of the resamples holds only the first prompt, a quarter only the second
    assert result == (1.0, 0.9, 2.0)


def test_the_same_seed_gives_the_same_interval_and_jax_arrays_are_taken():
    x = np.array([0.25, 0.5, 2.0, 4.0])
    assert metrics.bootstrap(x, seed=3) == metrics.bootstrap(jnp.asarray(x), seed=3)
    assert metrics.bootstrap(x, seed=3) != metrics.bootstrap(x, seed=4)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.wilson(3, 2), "3 of 2"),
        (lambda: metrics.wilson(0, 0), "trials >= 1"),
        (lambda: metrics.wilson(1, 2, confidence=95), r"confidence must be in \(0, 1\)"),
        (lambda: metrics.sign_test(-1, 2), "-1 and 2"),
        (lambda: metrics.holm([0.2, 1.2]), r"p_values must be in \[0, 1\]"),
        (lambda: metrics.holm([]), "p_values must be"),
        (lambda: metrics.holm([0.1], alpha=1.0), "alpha"),
        (lambda: metrics.bootstrap([]), "not empty"),
        (lambda: metrics.bootstrap(np.zeros((2, 2, 2))), "seeds"),
        (lambda: metrics.bootstrap([1.0, np.nan]), "1 values that are not finite"),
        (lambda: metrics.bootstrap([1.0], samples=0), "samples"),
        (lambda: metrics.paired_bootstrap([1.0], [1.0, 2.0]), "one shape"),
        (lambda: metrics.bootstrap_ratio([1.0], [0.0]), "denominator is 0"),
        (lambda: metrics.bootstrap_ratio([1.0], [-1.0]), "denominator must be in"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
