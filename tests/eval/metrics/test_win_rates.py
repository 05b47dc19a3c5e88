"""Order-swapped, length-controlled, Arena-Hard and style-controlled win rates."""

import numpy as np
import pytest

from jalign.eval import metrics
from jalign.eval.metrics import _logistic
from tests.eval.metrics._oracles import ORACLES

ALPACA = ORACLES["alpaca_eval"]
ROWS = [np.array(ALPACA[name]) for name in ("preference", "model_len", "baseline_len")]
GAMED = metrics.Gamed(**ALPACA["gamed"])
ARENA = ORACLES["arena_hard"]
SIDES = ("model", "baseline")

FIRST = np.array([0.9, 0.8, 0.3, 0.5, 0.6, 0.1])
SECOND = np.array([0.7, 0.1, 0.2, 0.5, 0.45, 0.95])


def test_the_win_rate_is_the_mean_of_both_orders():
    result = metrics.win_rate(FIRST, SECOND)
    # prompts: 0.8, 0.45, 0.25, 0.5, 0.525, 0.525
    assert result.rate.value == pytest.approx((0.8 + 0.45 + 0.25 + 0.5 + 0.525 + 0.525) / 6)
    assert (result.wins, result.ties, result.losses) == (3, 1, 2)
    # the orders agree on the first, third and fourth prompt
    assert result.position_consistency.value == 3 / 6
    assert result.p_value == metrics.sign_test(3, 2)
    assert result.rate.low < result.rate.value < result.rate.high


def test_a_tie_margin_moves_counts_and_not_the_rate():
    plain, wide = (metrics.win_rate(FIRST, SECOND, tie_margin=m) for m in (0.0, 0.06))
    assert plain.rate == wide.rate
    assert (wide.wins, wide.ties, wide.losses) == (1, 4, 1)
    # 0.45 is now a tie in its order, and 0.6 is still a win
    assert wide.position_consistency.value == 3 / 6


def test_a_probability_at_the_tie_margin_is_a_tie():
    result = metrics.win_rate([0.75, 1.0], [0.75, 0.75], tie_margin=0.25)
    assert (result.wins, result.ties, result.losses) == (1, 1, 0)


def test_swapping_the_models_mirrors_the_win_rate():
    a = metrics.win_rate(FIRST, SECOND)
    b = metrics.win_rate(1 - SECOND, 1 - FIRST)
    np.testing.assert_allclose(b.rate.value, 1 - a.rate.value)
    assert (b.wins, b.losses, b.position_consistency) == (a.losses, a.wins, a.position_consistency)


def test_a_judge_of_slots_alone_gives_ties():
    result = metrics.win_rate([1.0] * 4, [0.0] * 4)
    assert (result.rate.value, result.ties, result.position_consistency.value) == (0.5, 4, 0.0)
    assert result.p_value == 1.0


def test_two_models_are_compared_by_their_preferences_on_the_same_prompts():
    better = metrics.preference(FIRST + 0.05, SECOND)
    result = metrics.paired_bootstrap(better, metrics.preference(FIRST, SECOND))
    np.testing.assert_allclose(result.estimate, [0.025] * 3)


def test_the_minimal_length_control_equals_alpaca_eval():
    oracle = ALPACA["minimal"]
    result = metrics.length_controlled(*ROWS, samples=50)
    assert result.c == oracle["c"]
    np.testing.assert_allclose(
        [result.weights.length, result.weights.model], oracle["weights"], rtol=1e-6
    )
    np.testing.assert_allclose(result.win_rate.value, oracle["win_rate"], rtol=1e-7)
    np.testing.assert_allclose(result.win_rate.value, oracle["at_default_tolerance"], rtol=1e-4)
    assert result.weights.difficulty == 0
    assert result.win_rate.low < result.win_rate.value < result.win_rate.high


def test_the_full_length_control_equals_alpaca_eval():
    oracle = ALPACA["full"]
    result = metrics.length_controlled_full(*ROWS, ALPACA["difficulty"], GAMED, samples=50)
    assert result.c == oracle["c"]
    np.testing.assert_allclose(result.weights, oracle["weights"], rtol=1e-6)
    np.testing.assert_allclose(result.win_rate.value, oracle["win_rate"], rtol=1e-7)
    np.testing.assert_allclose(result.standard_error, oracle["standard_error"], rtol=1e-6)


def test_a_judge_of_length_alone_leaves_nothing_at_equal_length():
    rng = np.random.default_rng(2)
    model, baseline = rng.integers(100, 900, 400), rng.integers(50, 500, 400)
    x = np.tanh((model - baseline) / (model - baseline).std(ddof=1))
    result = metrics.length_controlled(1 / (1 + np.exp(-2 * x)), model, baseline, c=1e6, samples=20)
    assert result.raw > 0.65
    assert result.weights.length == pytest.approx(-2, abs=1e-3)
    assert result.win_rate.value == pytest.approx(0.5, abs=1e-4)


def test_where_the_regression_is_certain_only_the_prompts_move_the_interval():
    rng = np.random.default_rng(3)
    hard, model, baseline = rng.normal(size=200), rng.integers(1, 99, 200), rng.integers(1, 99, 200)
    p = 1 / (1 + np.exp(-0.3 - 2 * hard))
    result = metrics.length_controlled_full(p, model, baseline, hard, c=1e6, samples=400)
    assert result.win_rate.value == pytest.approx(p.mean(), abs=1e-4)
    assert result.standard_error == pytest.approx(p.std(ddof=1) / np.sqrt(200), rel=1e-3)
    width = (result.win_rate.high - result.win_rate.low) / (2 * 1.96)
    assert width == pytest.approx(result.standard_error, rel=0.15)


def test_a_strong_penalty_takes_every_weight_to_exactly_0():
    result = metrics.length_controlled(*ROWS, c=1e-4, samples=5)
    assert result.weights == (0, 0, 0) and result.win_rate.value == 0.5


def test_a_model_that_always_wins_has_a_finite_length_controlled_rate():
    result = metrics.length_controlled(
        np.ones(20), np.arange(20) * 7 % 31, np.arange(20), samples=5
    )
    assert 0.5 < result.win_rate.value <= 1


def test_the_win_rate_between_two_models_by_hand():
    a, b = metrics.LengthWeights(9.0, 0.5, 1.2), metrics.LengthWeights(-3.0, 0.1, 0.7)
    hard = np.array([1.0, -2.0])
    expected = np.mean(1 / (1 + np.exp(-(0.5 + 0.4 * hard))))
    assert metrics.length_controlled_between(a, b, hard) == pytest.approx(expected)
    both = metrics.length_controlled_between(b, a, hard) + expected
    assert both == pytest.approx(1)


def test_the_lasso_meets_its_optimality_conditions():
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=(50, 3)), rng.random((2, 50))
    y = 1 / (1 + np.exp(-2 * x[:, 0] - rng.normal(size=50)))
    fit = _logistic.fit(x, y, w, lasso=2.5)
    for row, weight in zip(fit.coefficients, w, strict=True):
        gradient = (weight * (1 / (1 + np.exp(-x @ row)) - y)) @ x
        zero = row == 0
        assert zero.any() and not zero.all()
        np.testing.assert_allclose(gradient[~zero], -2.5 * np.sign(row[~zero]), atol=1e-8)
        assert (np.abs(gradient[zero]) <= 2.5).all()


def test_verdicts_are_scored_for_the_model_in_both_games():
    battles = metrics.verdict_scores(["A>>B", "A=B", "B>A"], ["A>B", "B>>A", "A<B"])
    assert battles.score.tolist() == [1, 0.5, 0, 0, 1, 1]
    assert battles.weight.tolist() == [3, 1, 1, 1, 3, 1]
    assert battles.prompt.tolist() == [0, 1, 2, 0, 1, 2]
    result = metrics.arena_hard(*battles)
    # 3 + 1/2 + 0 + 0 + 3 + 1 of 10
    assert result.value == pytest.approx(7.5 / 10)
    assert result.low < 0.75 < result.high


def test_the_same_verdicts_from_the_other_side_are_the_rest():
    a, b = ["A>>B", "B>A", "A=B", "A>B"], ["B>A", "A>>B", "B>>A", "A=B"]
    one, other = metrics.verdict_scores(a, b), metrics.verdict_scores(b, a)
    # the baseline is A where the model is B
    total = metrics.arena_hard(*one).value + metrics.arena_hard(*other).value
    assert total == pytest.approx(1)


def test_counts_of_style_equal_arena_hards():
    counts = metrics.style_counts(ARENA["texts"], [11, 12, 13])
    assert counts[:, 0].tolist() == [11, 12, 13]
    assert counts[:, 1:].tolist() == ARENA["counts"]


def test_features_of_style_equal_arena_hards():
    features = metrics.style_features(ARENA["style_model"], ARENA["style_baseline"])
    np.testing.assert_allclose(features, ARENA["features"], rtol=1e-9, atol=1e-12)
    weight = np.ones(len(features))
    weight[7] = 3
    repeated = [np.insert(ARENA[f"style_{x}"], 7, [ARENA[f"style_{x}"][7]] * 2, 0) for x in SIDES]
    weighted = metrics.style_features(ARENA["style_model"], ARENA["style_baseline"], weight=weight)
    np.testing.assert_allclose(metrics.style_features(*repeated)[9:], weighted[7:], rtol=1e-9)


def test_style_control_equals_arena_hards_fit():
    result = metrics.style_controlled(ARENA["model"], ARENA["score"], ARENA["features"], samples=30)
    np.testing.assert_allclose(result.strength, ARENA["strength"], rtol=1e-5)
    np.testing.assert_allclose(result.coefficients, ARENA["coefficients"], rtol=1e-4)
    np.testing.assert_allclose(result.win_rate, 1 / (1 + np.exp(-result.strength)))
    assert (result.low < result.win_rate).all() and (result.win_rate < result.high).all()
    assert result.resamples == 30


def test_without_features_style_control_is_the_plain_score():
    model = np.array([0, 0, 0, 1, 1, 1])
    score, weight = np.array([1, 0, 0.5, 1, 1, 0]), np.array([1, 2, 1, 3, 1, 1])
    result = metrics.style_controlled(model, score, np.zeros((6, 0)), weight=weight, samples=50)
    np.testing.assert_allclose(result.win_rate, [1.5 / 4, 4 / 5], rtol=1e-9)


def test_without_features_the_interval_is_that_of_the_weighted_score():
    rng = np.random.default_rng(0)
    score, weight = rng.integers(0, 2, 80).astype(float), rng.choice([1.0, 3.0], 80)
    prompt = np.repeat(np.arange(40), 2)
    options = {"samples": 60, "seed": 5}
    result = metrics.style_controlled(
        np.zeros(80, int), score, np.zeros((80, 0)), weight=weight, prompt=prompt, **options
    )
    plain = metrics.arena_hard(score, weight, prompt, **options)
    np.testing.assert_allclose([result.low[0], result.high[0]], plain[1:], rtol=1e-9)


NAN = [0.5, np.nan]


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.win_rate([], []), "n >= 1"),
        (lambda: metrics.win_rate([0.5], [0.5, 0.5]), r"\(1,\), \(2,\)"),
        (lambda: metrics.win_rate([1.5], [0.5]), r"first must be in \[0, 1\], got 1.5"),
        (lambda: metrics.win_rate([0.5, 0.5], NAN), "second has 1 values that are not finite"),
        (lambda: metrics.win_rate([0.5], [0.5], tie_margin=0.5), "tie_margin"),
        (lambda: metrics.length_controlled([0.1, 0.9], [3, 9], [1, 1]), "at least 5 prompts"),
        (lambda: metrics.length_controlled([0.1, 0.9], [3, 9], [3, 9]), "differences are equal"),
        (lambda: metrics.length_controlled([0.1, 0.9], [3, -9], [3, 9]), "model_len must be in"),
        (lambda: metrics.length_controlled([0.1, 0.9], [3, 9], [1, 1], c=0.0), "c must be > 0"),
        (lambda: metrics.length_controlled_full([0.1, 0.9], [3, 9], [1, 1], [1.0]), "difficulty"),
        (lambda: metrics.verdict_scores(["A>B"], []), "got 1 and 0"),
        (lambda: metrics.verdict_scores(["A>B", "A?B"], ["A>B"] * 2), r"as_a\[1\] is 'A\?B'"),
        (lambda: metrics.verdict_scores(["A>B"], ["A>B"], strong_weight=0.5), "strong_weight"),
        (lambda: metrics.arena_hard([2.0], [1.0], [0]), "score must be in"),
        (lambda: metrics.arena_hard([1.0], [1.0], [0.5]), "integers"),
        (lambda: metrics.style_counts(["a"], [1, 2]), "1 texts, 2 tokens"),
        (lambda: metrics.style_features(np.zeros((2, 4)), np.zeros((2, 4))), "no tokens"),
        (lambda: metrics.style_features(np.ones((2, 3)), np.ones((2, 3))), r"\[m, 4\]"),
        (
            lambda: metrics.style_controlled([0, 2], [1, 0], np.zeros((2, 1))),
            "model 1 has no games",
        ),
        (lambda: metrics.style_controlled([0, 0], [1, 1], np.zeros((2, 0))), "always wins"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
