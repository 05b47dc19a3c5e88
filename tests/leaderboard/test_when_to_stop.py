"""Rules that stop, compared on records written down by hand."""

import pytest

from jalign.leaderboard.stopping import (
    LOSSES,
    WINS,
    Record,
    best_gain,
    compare,
    gain,
    rules,
    sequential,
    stopped_at,
)


def record(method, true, kl):
    evaluations = [
        {
            "step": i, "reward": 0.1 * i, "objective/kl": x, "completions/mean_length": 20.0,
            "completions/distinct_2": 0.5, WINS: 0.0, LOSSES: 0.0,
        }
        for i, x in enumerate(kl)
    ]  # fmt: skip
    return Record(method, evaluations, true)


# the best is at 5 nats for both, the last is below the start
FIRST = record("one", [0.2, 0.6, 0.8, 0.4, 0.1], [0.0, 1.0, 5.0, 12.0, 30.0])
SECOND = record("two", [0.2, 0.4, 0.5, 0.3, 0.0], [0.0, 2.0, 4.9, 15.0, 50.0])
# it never gains; its KL stays below every budget
WORSE = record("three", [0.5, 0.4], [0.0, 1.0])


def test_a_gain_is_the_true_reward_above_that_of_the_start():
    never = lambda evaluations: False  # noqa: E731
    assert stopped_at(never, FIRST.evaluations) == 4
    assert gain(FIRST, never) == pytest.approx(-0.1)
    budget = rules(kl_budget=4.0)
    assert stopped_at(budget, FIRST.evaluations) == 2
    assert gain(FIRST, budget) == best_gain(FIRST) == pytest.approx(0.6)
    assert gain(FIRST, rules(kl_budget=10.0)) == pytest.approx(0.2)
    assert best_gain(WORSE) == 0 and gain(WORSE, never) == pytest.approx(-0.1)


def test_the_rule_that_stops_in_time_is_first_with_a_threshold_from_other_methods():
    outcomes = {outcome.family: outcome for outcome in compare([FIRST, SECOND, WORSE])}
    best = outcomes["KL budget"]
    assert next(iter(outcomes)) == "KL budget" and best.threshold == 2.0
    assert best.kept == pytest.approx((0.6 + 0.3 - 0.1) / 0.9) and best.lost == pytest.approx(0.1)
    assert best.steps == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert outcomes["never"].steps == 1.0 and outcomes["never"].lost == pytest.approx(0.7)
    assert outcomes["never"].kept == pytest.approx((-0.1 - 0.2 - 0.1) / 0.9)
    # the proxy only rises
    assert outcomes["patience on the held-out proxy"].kept == outcomes["never"].kept
    with pytest.raises(ValueError, match="at least two"):
        compare([FIRST, FIRST])
    with pytest.raises(ValueError, match="nothing to keep"):
        compare([WORSE, WORSE._replace(method="four")])


def judged(*games):
    return [{"step": 0}, *({"step": i, WINS: w, LOSSES: n} for i, (w, n) in enumerate(games, 1))]


def test_the_sequential_test_adds_up_losses_since_the_last_gain():
    # one-sided p of 4 losses to 0: 1/16; of 8 to 1: 10/512
    assert not sequential(judged((0, 4)), 0.05) and sequential(judged((0, 4)), 0.07)
    assert sequential(judged((0, 4), (1, 4)), 0.05)
    assert not sequential(judged((0, 4), (9, 1)), 0.07)  # a gain begins the count again
    assert not sequential(judged((9, 1), (0, 4)), 0.05)
    assert not sequential(judged((3, 3)), 0.9)
