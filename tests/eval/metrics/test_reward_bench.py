"""RewardBench 1 and 2."""

import numpy as np
import pytest

from jalign.eval import metrics
from jalign.eval.metrics.reward_bench import SECTIONS, SUBSETS_2
from tests.eval.metrics._oracles import ORACLES

BENCH = ORACLES["reward_bench"]
TIES = BENCH["ties"]


def test_sections_equal_reward_benchs():
    result = metrics.reward_bench(BENCH["chosen"], BENCH["rejected"], BENCH["subset"])
    assert set(result.sections) == set(BENCH["sections"])
    for section, value in BENCH["sections"].items():
        assert result.sections[section] == pytest.approx(value, rel=1e-12)
    assert result.score == pytest.approx(np.mean(list(BENCH["sections"].values())))


def test_sections_by_hand_and_a_tie_is_wrong():
    subset = ["math-prm", "math-prm", "hep-go", "mt-bench-hard"]
    result = metrics.reward_bench([2.0, 1.0, 0.5, 3.0], [1.0, 1.0, 0.1, 4.0], subset)
    assert result.subsets == {"mt-bench-hard": 0.0, "math-prm": 0.5, "hep-go": 1.0}
    reasoning = (984 * 0.5 + 164 * 1.0) / (984 + 164)
    assert result.sections == {"Chat Hard": 0.0, "Reasoning": pytest.approx(reasoning)}
    assert result.score == pytest.approx(reasoning / 2)


def test_the_weight_of_the_math_subset_is_that_of_the_code_subsets():
    weights = SECTIONS["Reasoning"]
    assert weights["math-prm"] == sum(w for name, w in weights.items() if name != "math-prm")


def test_a_shared_top_score_is_a_shared_credit():
    scores = [[2.0, 1.5, 0.0, -1.0], [1.0, 1.0, 0.5, 1.0], [0.0, 3.0, 1.0, 2.0]]
    np.testing.assert_allclose(metrics.best_of_n_credit(scores), [1, 1 / 3, 0])
    np.testing.assert_allclose(metrics.best_of_n_credit(scores, correct=1), [0, 1 / 3, 1])


def test_the_ties_score_equals_reward_benchs():
    result = metrics.ties_score(TIES["reference"], TIES["tied"], TIES["correct"])
    assert result.score == pytest.approx(TIES["score"], rel=1e-12)
    assert 0 < result.reference < 1 and 0 < result.separated_both < result.separated < 1


def test_the_ties_score_by_hand():
    reference, tied = [[2.0, 0.5], [1.0, 1.5]], [[3.0, 2.5, 1.0], [2.0, 0.0, -0.2]]
    result = metrics.ties_score(reference, tied, [2, 2])
    # margins: 1.5 and -0.5 of the references; 1.5 and 0.2 of the tied, spreads 0.5 and 2
    margin = (np.tanh(1.5 / 0.5 - 1) + np.tanh(-0.5 / 2 - 1)) / 2
    expected = 0.3 * 1 + 0.3 * 0.5 + 0.2 * 0.5 + 0.2 * 0.5 + 0.01 * margin
    np.testing.assert_allclose(result, [expected, 1, 0.5, 0.5, 0.5, margin])


def test_answers_without_spread_or_margin_add_nothing():
    result = metrics.ties_score([[1.0, 1.0]], [[1.0, 1.0, 1.0]], [2])
    assert result == (0, 0, 0, 0, 0, 0)


def test_reward_bench_2_is_the_mean_of_its_six_subsets():
    scores = dict(zip(SUBSETS_2, [0.9, 0.4, 0.6, 0.8, 0.75, 0.5], strict=True))
    assert metrics.reward_bench_2(scores) == pytest.approx(3.95 / 6)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: metrics.reward_bench([1.0], [0.0], ["hep-cobol"]), "unknown subset 'hep-cobol'"),
        (lambda: metrics.reward_bench([1.0], [0.0], ["hep-go"] * 2), r"subset must be \(1,\)"),
        (lambda: metrics.reward_bench([np.inf], [0.0], ["hep-go"]), "not finite"),
        (lambda: metrics.best_of_n_credit([1.0, 2.0]), r"\[n, k\]"),
        (lambda: metrics.best_of_n_credit([[1.0, 2.0]], correct=2), "column 2"),
        (lambda: metrics.ties_score([[1.0, 0.0]], [[1.0, 0.5]], [2]), "none incorrect"),
        (lambda: metrics.ties_score([[1.0, 0.0]], [[1.0, 0.5]], [1]), "correct must be >= 2"),
        (lambda: metrics.ties_score([], [], []), "p >= 1"),
        (lambda: metrics.reward_bench_2({"Math": 1.0}), "Factuality"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
