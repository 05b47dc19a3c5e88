"""What training gained and cost: the KL frontier, diversity, forgetting."""

import numpy as np
import pytest

from jalign.eval import metrics
from tests.eval.metrics._oracles import STATISTICS

FRONTIER, BLEU = STATISTICS["frontier"], STATISTICS["self_bleu"]
KL, GOLD = [4.0, 1.0, 2.0, 9.0, 6.0], [3.0, 2.0, 2.2, 1.0, 3.0]


@pytest.mark.parametrize("form", ["bon", "rl"])
def test_the_scaling_fit_equals_scipys(form):
    oracle = FRONTIER[form]
    for name, errors in (("known", FRONTIER["errors"]), ("free", None)):
        fit = metrics.fit_frontier(FRONTIER["kl"], oracle["gold"], form=form, errors=errors)
        # curve_fit differentiates numerically
        np.testing.assert_allclose([fit.alpha, fit.beta], oracle[name][0], rtol=1e-5)
        np.testing.assert_allclose(fit.covariance, oracle[name][1], rtol=1e-4)
        np.testing.assert_allclose(fit.errors, np.sqrt(np.diag(oracle[name][1])), rtol=1e-4)


@pytest.mark.parametrize("form", ["bon", "rl"])
def test_the_fit_finds_the_law_that_made_the_points_and_its_peak(form):
    kl = np.array([0.3, 1.0, 2.5, 7.0])
    d = np.sqrt(kl)
    gold = d * (0.9 - 0.4 * (d if form == "bon" else np.log(d)))
    fit = metrics.fit_frontier(kl, gold, form=form)
    np.testing.assert_allclose([fit.alpha, fit.beta], [0.9, 0.4], rtol=1e-9)
    np.testing.assert_allclose(metrics.predict_gold(fit, kl), gold, rtol=1e-9)
    peak = metrics.predict_gold(fit, np.array([0.98, 1.0, 1.02]) * fit.peak_kl)
    assert peak[1] > peak[0] and peak[1] > peak[2]
    assert metrics.predict_gold(fit, [0.0]).tolist() == [0]


def test_a_point_with_a_small_error_decides():
    kl, gold = [1.0, 4.0, 4.0], [1.0, 1.2, 3.0]
    fits = [metrics.fit_frontier(kl, gold, errors=[0.1, *e]) for e in ([0.1, 9], [9, 0.1])]
    ends = [float(metrics.predict_gold(fit, [4.0])[0]) for fit in fits]
    np.testing.assert_allclose(ends, [1.2, 3.0], atol=1e-3)


def test_reward_that_grows_with_kl_has_no_peak():
    assert metrics.fit_frontier([1.0, 4.0], [1.0, 2.5], form="bon").peak_kl == np.inf


def test_the_frontier_is_the_concave_hull_of_the_points_and_the_start():
    at = [0.0, 0.5, 1.0, 2.5, 4.0, 20.0]
    # the points at 2, 6 and 9 lie on or below it
    expected = [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]
    np.testing.assert_allclose(metrics.gold_at_kl(KL, GOLD, at, start=1.0), expected)


def test_the_area_under_the_frontier_by_hand():
    # over [0, 1]: 1.5, over [1, 4]: 2.5, then 3
    area = (1.5 + 3 * 2.5 + 5 * 3) / 9
    assert metrics.frontier_area(KL, GOLD, start=1.0) == pytest.approx(area)
    assert metrics.frontier_area(KL, GOLD, start=1.0, max_kl=2.5) == pytest.approx(
        (1.5 + 1.5 * 2.25) / 2.5
    )


def test_a_worse_point_never_lowers_the_frontier_and_its_order_does_not_matter():
    rng = np.random.default_rng(0)
    kl, gold, at = rng.uniform(0, 9, 30), rng.normal(0, 1, 30), np.linspace(0, 9, 50)
    frontier = metrics.gold_at_kl(kl, gold, at)
    order = rng.permutation(30)
    np.testing.assert_allclose(metrics.gold_at_kl(kl[order], gold[order], at), frontier)
    more = metrics.gold_at_kl(np.append(kl, 3.0), np.append(gold, 0.7), at)
    assert (more >= frontier - 1e-12).all()
    assert (metrics.gold_at_kl(kl, gold, kl) >= gold - 1e-12).all()
    assert (np.diff(frontier, 2) <= 1e-9).all() and (np.diff(frontier) >= -1e-12).all()


def test_training_that_only_loses_stays_at_the_start():
    assert metrics.gold_at_kl([1.0, 2.0], [-1.0, 0.5], [0.5, 3.0], start=0.7).tolist() == [0.7, 0.7]


def test_k1_is_the_mean_log_ratio_with_its_standard_error():
    result = metrics.k1_kl([-3.0, -5.0, -4.5], [-4.0, -5.5, -4.5])
    np.testing.assert_allclose(result, [0.5, 0.5 / np.sqrt(3)])


def test_distinct_n_counts_all_responses_together():
    responses = [["a", "b", "a", "b"], ["a", "b", "c"], ["c"]]
    assert metrics.distinct_n(responses, n=1) == 3 / 8
    assert metrics.distinct_n(responses) == 3 / 5
    assert metrics.distinct_n([["a"]], n=2) == 0


def test_self_bleu_equals_nltks():
    assert metrics.self_bleu(BLEU["texts"]) == pytest.approx(BLEU["value"], rel=1e-12)


def test_self_bleu_of_equal_responses_is_1_and_of_disjoint_ones_0():
    assert metrics.self_bleu([[1, 2, 3, 4, 5]] * 3) == pytest.approx(1)
    assert metrics.self_bleu([[1, 2, 3], [4, 5, 6]]) == 0


def test_self_bleu_by_hand():
    # unigrams 2/3 and 2/2, bigrams 1/2 and 1/1; the second is one token shorter
    expected = (np.sqrt(2 / 3 / 2) + np.exp(1 - 3 / 2)) / 2
    assert metrics.self_bleu([[1, 2, 3], [1, 2]], n=2) == pytest.approx(expected)


def test_pairwise_distance_equals_the_mean_over_pairs():
    x = np.random.default_rng(0).normal(size=(6, 3))
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    pairs = [1 - unit[i] @ unit[j] for i in range(6) for j in range(i)]
    assert metrics.mean_pairwise_distance(x) == pytest.approx(np.mean(pairs))
    assert metrics.mean_pairwise_distance([[1.0, 0], [-3.0, 0]]) == 2


def test_entropy_is_per_token_of_the_mask():
    logps = np.array([[-1.0, -2.0, 7.0], [-0.5, np.nan, np.nan]])
    mask = np.array([[True, True, False], [True, False, False]])
    assert metrics.token_entropy(logps, mask).value == pytest.approx(3.5 / 3)


def test_nll_change_is_of_sums_of_nats_over_tokens():
    result = metrics.nll_change([10.0, 4.0, 6.0], [12.0, 3.5, 6.25], [5, 2, 3])
    assert (result.before, result.after) == pytest.approx((2.0, 2.175))
    assert result.change.value == pytest.approx(0.175)
    assert result.change.low == pytest.approx(-0.25)  # three times the second example
    assert result.change.high == pytest.approx(0.4)


def test_the_kl_on_new_data_is_the_starts_and_per_token():
    start = np.log([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])
    trained = np.log([[0.25, 0.5, 0.25], [0.25, 0.5, 0.25], [0.125, 0.375, 0.5]])
    # log 2 / 2 - log 2 / 4, 0, and log 2 / 4 + log(2 / 3) / 4
    by_hand = np.array([np.log(2) / 4, 0.0, np.log(4 / 3) / 4])
    result = metrics.new_task_kl(start, trained, [0, 0, 1])
    assert result.value == pytest.approx(by_hand.mean())
    # an example of two tokens, or the other one alone
    assert result.low == pytest.approx(by_hand[2]) and result.high == pytest.approx(np.log(2) / 8)
    reverse = metrics.new_task_kl(trained[:1], start[:1], [0]).value
    assert reverse == pytest.approx(np.log(2) / 4)


def test_a_token_that_the_start_never_writes_adds_nothing_to_the_kl():
    with np.errstate(divide="ignore"):
        start, trained = np.log([[1.0, 0.0]]), np.log([[0.5, 0.5]])
    assert metrics.new_task_kl(start, trained, [0]).value == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="not finite"):
        metrics.new_task_kl(trained, start, [0])


def test_forgetting_is_fitted_by_hand_and_predicted():
    # 0.25 KL + 0.5 KL^2 would be 0.75, 2.5, 5.25; the last model forgot 0.21 more
    fit = metrics.fit_forgetting([1.0, 2.0, 3.0], [0.75, 2.5, 5.46])
    # normal equations: [[14, 36], [36, 98]] [a, b] = [22.13, 59.89]
    a, b = (98 * 22.13 - 36 * 59.89) / 76, (14 * 59.89 - 36 * 22.13) / 76
    assert (fit.linear, fit.quadratic) == pytest.approx((a, b))
    residuals = np.array([0.75 - a - b, 2.5 - 2 * a - 4 * b, 5.46 - 3 * a - 9 * b])
    mean = 8.71 / 3
    spread = (0.75 - mean) ** 2 + (2.5 - mean) ** 2 + (5.46 - mean) ** 2
    assert fit.r_squared == pytest.approx(1 - (residuals**2).sum() / spread)
    np.testing.assert_allclose(metrics.predict_forgetting(fit, [0.0, 2.0]), [0, 2 * a + 4 * b])


def test_the_order_of_models_counts_pairs_and_a_tie_half():
    assert metrics.fit_forgetting([1.0, 2.0, 3.0], [0.1, 0.3, 0.2]).ordered == pytest.approx(2 / 3)
    assert metrics.fit_forgetting([1.0, 2.0, 3.0], [0.1, 0.1, 0.2]).ordered == pytest.approx(5 / 6)


def test_score_change_counts_what_was_gained_and_lost():
    before, after = [1, 1, 0, 1, 0, 1, 1], [1, 0, 1, 0, 0, 0, 1]
    result = metrics.score_change(before, after)
    assert (result.before, result.after) == pytest.approx((5 / 7, 3 / 7))
    assert result.change.value == pytest.approx(-2 / 7)
    assert (result.gained, result.lost) == (1, 3)
    assert result.p_value == metrics.sign_test(1, 3)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.fit_frontier([0.0, 1.0], [0.0, 1.0]), "kl must be > 0"),
        (lambda: metrics.fit_frontier([1.0, 1.0], [0.0, 1.0]), "two different KLs"),
        (lambda: metrics.fit_frontier([1.0, 2.0], [0.0, 1.0], form="ppo"), "rl, bon"),
        (lambda: metrics.fit_frontier([1.0, 2.0], [0.0, 1.0], errors=[1.0, 0.0]), "errors"),
        (lambda: metrics.gold_at_kl([-1.0], [0.0], [1.0]), "kl must be in"),
        (lambda: metrics.gold_at_kl([1.0], [0.0], [-1.0]), "at must be in"),
        (lambda: metrics.gold_at_kl([1.0], [0.0], [1.0], start=np.nan), "start"),
        (lambda: metrics.frontier_area([0.0], [1.0]), "max_kl must be > 0"),
        (lambda: metrics.k1_kl([-1.0], [-2.0]), "at least 2"),
        (lambda: metrics.distinct_n([]), "needs 1 responses"),
        (lambda: metrics.distinct_n(["a text"]), "got a text"),
        (lambda: metrics.self_bleu([["a"]]), "needs 2 responses"),
        (lambda: metrics.self_bleu([["a"], ["b"]], n=0), "n=0"),
        (lambda: metrics.mean_pairwise_distance([[1.0], [0.0]]), "embedding 1 is 0"),
        (lambda: metrics.mean_pairwise_distance([1.0, 2.0]), r"\[k, d\]"),
        (lambda: metrics.token_entropy([[0.5]], [[True]]), "logps must be in"),
        (lambda: metrics.token_entropy([[-0.5]], [[False]]), "with tokens"),
        (lambda: metrics.nll_change([1.0], [1.0], [0]), "denominator is 0"),
        (lambda: metrics.nll_change([-1.0], [1.0], [2]), "before must be in"),
        (lambda: metrics.score_change([1.0], [np.nan]), "not finite"),
        (lambda: metrics.new_task_kl([[-1.0]], [[0.0]], [0]), "start_logps must be log-probs"),
        (lambda: metrics.new_task_kl([[0.0]], [[0.0]], [0, 1]), r"\[n, V\]"),
        (lambda: metrics.fit_forgetting([1.0, 2.0, 2.0], [1.0, 2.0, 3.0]), "3 different KLs"),
        (lambda: metrics.fit_forgetting([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]), "the same"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
