"""Estimates of wrong labels from margins."""

import numpy as np
import pytest

from jalign.eval.metrics import holder_share, label_reliability


def test_the_reliability_is_where_the_posterior_agrees_with_itself():
    margins = np.array([2.0, 1.0, -3.0, 0.5, 2.5])
    result = label_reliability(margins)
    eta = result.eta[0]
    odds = np.exp(margins) * eta / (1 - eta)
    np.testing.assert_allclose(result.posterior, odds / (1 + odds), rtol=1e-4)
    assert eta == pytest.approx(result.posterior.mean(), abs=1e-4)
    assert result.wrong_share == pytest.approx(1 - result.posterior.mean())
    # the maximum of the likelihood of a mixture, on a grid
    p, grid = 1 / (1 + np.exp(-margins)), np.linspace(0.001, 0.999, 999)[:, None]
    likelihood = np.log(grid * p + (1 - grid) * (1 - p)).sum(1)
    assert eta == pytest.approx(float(grid[likelihood.argmax(), 0]), abs=2e-3)


def test_each_annotator_has_a_reliability_and_one_without_labels_has_none():
    sure = np.array([9.0, 9.0, -9.0, -9.0, 9.0, 9.0])
    eta = label_reliability(sure, [0, 0, 2, 2, 3, 2]).eta
    np.testing.assert_allclose(eta, [1, np.nan, 1 / 3, 1], atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_calibrated_margins_recover_the_share_of_flips(seed):
    rng = np.random.default_rng(seed)
    margin = 3 * rng.normal(size=20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-margin))
    flips = rng.random(20_000) < 0.3
    given = np.where(right ^ flips, margin, -margin)
    assert label_reliability(given).wrong_share == pytest.approx(0.3, abs=0.015)


def test_hoelders_share_is_exact_where_labels_are_right_or_given_up():
    assert holder_share([1.5] * 7) == pytest.approx(0, abs=1e-12)
    assert holder_share([-80.0] * 2 + [4.0] * 8) == pytest.approx(0.2, abs=1e-12)
    # by hand: p = 1/2 and 3/4
    p = np.array([0.5, 0.75])
    q = p / p.sum()
    expected = 1 - np.mean(q**1.5) / np.sum(q**2.5)
    assert holder_share([0.0, np.log(3)], gamma=1.5) == pytest.approx(expected, rel=1e-12)


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="margins must be"):
        holder_share([])
    with pytest.raises(ValueError, match="gamma must be > 0"):
        holder_share([1.0], gamma=0.0)
    with pytest.raises(ValueError, match="annotators must be 2 integers"):
        label_reliability([1.0, 2.0], [0])
    with pytest.raises(ValueError, match="margins has 1 values that are not finite"):
        label_reliability([1.0, np.nan])
