"""Verdicts and rows from results written down by hand."""

from dataclasses import replace

import numpy as np
import pytest

from jalign.eval.metrics import Estimate
from jalign.leaderboard.claims import (
    Definition,
    at_equal_length,
    equality,
    frontier,
    judge_claims,
    order,
    reward,
    shorter,
)
from jalign.leaderboard.games import against, style_wins
from jalign.leaderboard.results import MethodResult, Point, Start
from jalign.leaderboard.table import at_seconds, rows_of

PROMPTS = 24
BASE = np.linspace(-0.5, 0.5, PROMPTS)
NOISE = np.tile([0.03, -0.02, 0.01], PROMPTS // 3)


def method(name, gain, *, length=20.0, seeds=(0, 1, 2), points=()):
    true = np.stack([BASE + gain + NOISE * (1 + seed) for seed in seeds])
    lengths = length + np.tile(np.arange(4.0), PROMPTS // 4)
    return MethodResult(
        name, 0.1, seeds, true, np.tile(lengths, (len(seeds), 1)), np.full(true.shape, 2.0),
        margins=true - 0.2, nll=np.full((len(seeds), 3), 7.0), points=points, seconds=4.0,
        tokens=800.0, ids=[[[1, 2, 3], [1, 2, 4]]] * len(seeds),
        texts=[["a"] * PROMPTS] * len(seeds),
    )  # fmt: skip


def claim(a, b, of=reward, equal=False):
    return Definition(a, b, f"{a} and {b}", of, "1234.5678", equal)


METHODS = {
    "best": method("best", 0.5),
    "same": method("same", 0.51),
    "worst": method("worst", 0.1, length=35.0),
}


def test_a_claim_is_confirmed_refuted_or_open_by_its_interval():
    good, bad, close, equal, unequal = judge_claims(
        METHODS,
        [
            claim("best", "worst"), claim("worst", "best"), claim("same", "missing"),
            claim("best", "same", equal=True), claim("best", "worst", equal=True),
        ],
    )  # fmt: skip
    assert (good.verdict, bad.verdict, close.verdict) == ("confirmed", "refuted", "open")
    assert good.estimate.value == pytest.approx(0.4) and good.p_value < 0.05
    assert close.note == "not run: missing" and close.estimate is None
    assert close.needs == ("same", "missing")
    assert (equal.verdict, unequal.verdict) == ("confirmed", "refuted")


def test_p_values_are_corrected_for_the_claims_that_are_tested():
    one = judge_claims(METHODS, [claim("best", "worst")])[0]
    many = judge_claims(METHODS, [claim("best", "worst")] * 5 + [claim("best", "same", equal=True)])
    assert many[0].p_value == pytest.approx(5 * one.p_value) and many[-1].p_value is None


def test_a_claim_reads_the_seeds_that_both_methods_have():
    other = method("other", 0.2, seeds=(2, 5, 1, 0))
    result = judge_claims(METHODS | {"other": other}, [claim("best", "other")])[0]
    assert result.estimate.value == pytest.approx(0.3)
    two = replace(other, seeds=(2, 5, 1, 6))
    result = judge_claims(METHODS | {"other": two}, [claim("best", "other")])[0]
    assert (result.verdict, result.note) == ("open", "2 of 3 seeds") and result.estimate
    alone = replace(other, seeds=(7, 8, 9, 10))
    result = judge_claims(METHODS | {"other": alone}, [claim("best", "other")])[0]
    assert result.note == "not run: common seeds"


def test_order_and_equality_by_hand():
    assert order(Estimate(0.2, 0.1, 0.3), 0.04) == "confirmed"
    assert order(Estimate(-0.2, -0.3, -0.1), 0.04) == "refuted"
    assert order(Estimate(0.2, 0.1, 0.3), 0.06) == "open"
    assert equality(Estimate(0.01, -0.04, 0.04), 0.05) == "confirmed"
    assert equality(Estimate(0.01, -0.06, 0.04), 0.05) == "open"
    assert equality(Estimate(0.1, 0.06, 0.2), 0.05) == "refuted"


def test_shorter_is_measured_in_tokens_of_the_second_minus_the_first():
    assert shorter(METHODS["best"], METHODS["worst"]).estimate.value == pytest.approx(15.0)


def test_wins_at_equal_length_are_above_a_half_for_the_better_method():
    longer = replace(METHODS["best"], lengths=METHODS["best"].lengths[:, ::-1] + 1)
    difference = at_equal_length(longer, METHODS["worst"])
    assert difference.estimate.low > 0 and difference.p_value < 0.001
    same = METHODS["worst"]
    assert at_equal_length(METHODS["best"], same).p_value == 1.0  # one difference of length


def curve(gain, kl):
    """Two evaluations of the validation prompts at 2 and 4 seconds."""
    values = np.array([0.1, 0.3, 0.2])
    return tuple(
        Point(0.1, seed, step, 2.0 * step, np.full(3, kl * step), values + gain * step)
        for seed in (0, 1, 2)
        for step in (1, 2)
    )


def test_a_frontier_is_better_that_has_more_reward_at_less_kl():
    near, far = (replace(METHODS["best"], points=curve(0.2, kl)) for kl in (1.0, 8.0))
    assert frontier(near, far, 100).estimate.value > 0
    assert frontier(near, far, 100).p_value < 0.05
    assert frontier(near, near, 100).estimate.value == 0


def test_wins_at_equal_style_take_away_what_length_explains():
    start = Start(
        BASE, np.full(PROMPTS, 20.0), np.zeros(1), np.ones(1), np.zeros(1), 1.0, [], ["b"] * PROMPTS
    )

    def played(long_wins, long_losses, wins, losses):
        """Long answers win more often than others, alike in all methods."""
        counts = (long_wins, long_losses, wins, losses)
        sign = np.repeat([1.0, -1.0, 1.0, -1.0], counts)
        lengths = np.repeat([60.0, 60.0, 20.0, 20.0], counts)
        result = method("any", 0.0, seeds=(0,))
        return replace(result, true=(BASE + 0.1 * sign)[None], lengths=lengths[None])

    methods = {"longer": played(14, 2, 4, 4), "shorter": played(7, 1, 8, 8)}
    raw = {name: against(m.true, start.true).mean() for name, m in methods.items()}
    assert raw == {"longer": pytest.approx(18 / 24), "shorter": pytest.approx(15 / 24)}
    equal = style_wins(methods, start, samples=50)
    assert equal["longer"].value == pytest.approx(equal["shorter"].value, abs=0.005)
    assert equal["longer"].low < equal["longer"].value < equal["longer"].high


def test_the_second_ranking_interpolates_to_equal_seconds():
    result = replace(METHODS["best"], points=curve(0.2, 1.0))
    assert at_seconds(result, 0.1, 3.0) == pytest.approx(0.5)  # between 0.4 at 2 s and 0.6 at 4 s
    assert at_seconds(result, 0.1, 1.0) == pytest.approx(0.25)  # from the start's 0.1


def test_rows_are_ranked_by_true_reward_with_the_start_at_1000():
    start = Start(
        BASE, np.full(PROMPTS, 20.0), np.array([5.0, 6.0, 7.0]), np.array([2.0, 4.0, 4.0]),
        np.array([0.1, 0.3, 0.2]), 1.0, [[1, 2, 3, 4]], ["b"] * PROMPTS,
    )  # fmt: skip
    methods = {n: replace(m, points=curve(0.2, 1.0)) for n, m in METHODS.items()}
    rows, seconds = rows_of(methods, start, samples=100)
    assert [row.name for row in rows] == ["same", "best", "worst"] and seconds == 4.0
    best, worst = rows[1], rows[2]
    assert best.true.value == pytest.approx(0.5 + 0.04 / 3) and best.win.value == 1.0
    assert best.elo.value > worst.elo.value > 1000
    assert best.nll_change == pytest.approx((2 + 1 + 0) / 10)
    assert worst.length_ratio == pytest.approx(36.5 / 20)
    assert best.tokens_per_second == 200 and best.p_value < 0.1
    assert best.self_bleu == pytest.approx(
        ((2 / 3) * (1 / 2) * 0.1 * 0.1) ** 0.25
    )  # 3 words, 2 kept
    assert best.at_kl == pytest.approx([0.3, 0.4, 0.6, 0.6])
    right = (methods["best"].margins > 0).mean()
    assert 0 < right < 1 and best.accuracy.value == pytest.approx(right)
