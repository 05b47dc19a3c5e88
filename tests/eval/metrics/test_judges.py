"""A judge against people: agreement, position, length and self-preference; calibration."""

import numpy as np
import pytest
from scipy.special import expit

from jalign.eval import metrics
from tests.eval.metrics._oracles import ORACLES, STATISTICS

LABELS, LENGTH = STATISTICS["agreement"], STATISTICS["length_bias"]
RELIABILITY = STATISTICS["reliability"]
PAIRS = [np.array(LENGTH[name]) for name in ("preference", "len_a", "len_b")]


def test_kappa_and_its_interval_equal_statsmodels():
    result = metrics.agreement(LABELS["judge"], LABELS["human"])
    expected = [LABELS["kappa"], *LABELS["interval"]]
    np.testing.assert_allclose(result.kappa, expected, rtol=1e-10)
    np.testing.assert_allclose(result.kappa.value, LABELS["sklearn"], rtol=1e-10)


def test_verdicts_of_a_real_judge_give_llmbars_published_numbers():
    bar = ORACLES["llmbar"]
    first, second, human = (np.array(bar[name], float) for name in ("first", "second", "human"))
    equal = bar["percent"]["equal"] / 100
    assert metrics.position_bias(first, second).consistent.value == equal
    assert metrics.win_rate(first, second).position_consistency.value == equal
    both_orders = metrics.agreement(first, second)
    np.testing.assert_allclose(both_orders.kappa.value, bar["kappa_of_orders"], rtol=1e-12)
    rates = [metrics.agreement(order, human).rate.value for order in (first, second)]
    np.testing.assert_allclose(np.mean(rates), bar["percent"]["correct"] / 100, rtol=1e-12)


def test_agreement_by_hand():
    judge, human = [1, 1, 0, 0.5, 1, 0], [1, 0, 0, 0.5, 0.5, 0]
    result = metrics.agreement(judge, human)
    assert result.rate == metrics.wilson(4, 6)
    # P(0), P(1/2), P(1): 2 1 3 of the judge, 3 2 1 of people
    chance = (2 * 3 + 1 * 2 + 3 * 1) / 36
    assert result.chance == pytest.approx(chance)
    assert result.kappa.value == pytest.approx((4 / 6 - chance) / (1 - chance))


def test_agreement_by_one_label_has_no_kappa():
    result = metrics.agreement([1, 1], [1, 1])
    assert result.rate.value == 1 and np.isnan(result.kappa.value)
    assert metrics.agreement([1, 0], [0, 1]).kappa.value == -1


def test_position_bias_by_hand():
    # the first pair goes to slot 1 twice, the second to slot 2, the others are consistent
    first, second = [0.9, 0.2, 0.8, 0.4], [0.3, 0.6, 0.7, 0.1]
    result = metrics.position_bias(first, second)
    expected = np.mean([0.8, 0.3, 0.55, 0.65]) - 0.5
    assert result.first_slot.value == pytest.approx(expected)
    assert (result.consistent.value, result.first, result.second) == (0.5, 0.25, 0.25)


def test_swapping_the_responses_keeps_the_position_bias():
    rng = np.random.default_rng(0)
    first, second = rng.random(30), rng.random(30)
    a, b = metrics.position_bias(first, second), metrics.position_bias(1 - second, 1 - first)
    np.testing.assert_allclose(a.first_slot.value, b.first_slot.value)
    assert a[1:] == b[1:]


@pytest.mark.parametrize("name, human", [("plain", None), ("controlled", LENGTH["human"])])
def test_the_slope_on_length_and_its_interval_equal_statsmodels(name, human):
    result = metrics.length_bias(*PAIRS, human=human)
    expected = [LENGTH[name]["slope"], *LENGTH[name]["interval"]]
    np.testing.assert_allclose(result.slope, expected, rtol=1e-8)
    assert np.isnan(result.human) == (human is None)


def test_the_longer_response_is_counted_where_there_is_one():
    preference, len_a, len_b = [0.9, 0.2, 0.7, 0.5, 0.6], [30, 10, 5, 9, 7], [10, 20, 6, 1, 7]
    result = metrics.length_bias(preference, len_a, len_b)
    assert result.prefers_longer.value == 2 / 3  # the last two are a tie and of equal length


def test_swapping_the_responses_keeps_the_slope():
    preference, len_a, len_b = PAIRS
    a, b = metrics.length_bias(*PAIRS), metrics.length_bias(1 - preference, len_b, len_a)
    np.testing.assert_allclose(a.slope, b.slope, rtol=1e-8)
    assert a.prefers_longer == b.prefers_longer


def test_self_preference_is_a_difference_of_agreements():
    preference, human = [0.9, 0.8, 0.7, 0.4, 1.0], [1, 1, 0, 0.2, 0.5]
    result = metrics.self_preference(preference, human)
    assert (result.own, result.other) == pytest.approx((0.85, (0.3 + 0.6) / 2))
    assert result.bias.value == pytest.approx(0.85 - 0.45)
    assert result.excess == pytest.approx(np.mean(np.subtract(preference, human)))
    assert result.bias.low <= result.bias.value <= result.bias.high


def test_a_judge_that_follows_people_has_no_self_preference():
    human = np.array([1.0, 0, 0, 1, 0])
    assert metrics.self_preference(human, human).bias == (0, 0, 0)


def test_calibration_equals_scikit_learns():
    result = metrics.reliability(RELIABILITY["probabilities"], RELIABILITY["outcomes"], bins=5)
    np.testing.assert_allclose(result.probability, RELIABILITY["probability"], rtol=1e-12)
    np.testing.assert_allclose(result.outcome, RELIABILITY["outcome"], rtol=1e-12)
    values = [RELIABILITY[name] for name in ("ece", "brier", "nll")]
    np.testing.assert_allclose(result[:3], values, rtol=1e-12)


def test_calibration_of_margins_drawn_from_their_own_model():
    rng = np.random.default_rng(0)
    p = expit(rng.normal(0, 2, 50_000))
    result = metrics.reliability(p, rng.random(50_000) < p)
    assert result.ece < 0.01
    assert result.brier == pytest.approx(float((p * (1 - p)).mean()), abs=0.005)
    confident = metrics.reliability(expit(4 * (np.log(p) - np.log1p(-p))), rng.random(50_000) < p)
    assert confident.ece > 0.1


def test_an_impossible_outcome_costs_infinitely_much_and_empty_bins_are_nan():
    assert metrics.reliability([1.0, 0.2], [0, 0]).nll == np.inf
    certain = metrics.reliability([1.0, 0.0], [1, 0])
    assert (certain.ece, certain.brier, certain.nll) == (0, 0, 0)
    assert certain.counts.tolist() == [1, *[0] * 8, 1] and np.isnan(certain.outcome[4])


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.agreement([1], [1, 0]), "judge and human must be"),
        (lambda: metrics.agreement([np.nan], [1]), "not finite"),
        (lambda: metrics.position_bias([0.5], [-0.5]), "second must be in"),
        (lambda: metrics.length_bias([0.5, 1], [3, 4], [2, 3]), "differences are equal"),
        (lambda: metrics.length_bias([1.0, 0, 1], [9, 2, 8], [1, 5, 3]), "slope is not finite"),
        (lambda: metrics.length_bias([1.0, 0], [9, 2, 8], [1, 5, 3]), "n >= 1"),
        (lambda: metrics.self_preference([0.5, 0.5], [1, 1]), "people must prefer"),
        (lambda: metrics.reliability([1.2], [1]), "probabilities must be in"),
        (lambda: metrics.reliability([0.4], [1], low=0.5), r"probabilities must be in \[0.5"),
        (lambda: metrics.reliability([0.4], [1], bins=0), "bins"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
