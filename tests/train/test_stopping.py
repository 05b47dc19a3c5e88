"""What the rules say of evaluations written down by hand."""

import math

import numpy as np
import pytest

from jalign.rollout.types import Rollout
from jalign.train.online_metrics import distinct, diversity_metrics
from jalign.train.stopping import AUTO_RULES, StopRules, slope


def evaluations(*values, name="reward"):
    return [{"step": 10 * i, name: x} for i, x in enumerate(values)]


def answers(kl=0.0, length=20.0, diversity=0.8, step=0):
    return {
        "step": step,
        "objective/kl": kl,
        "completions/mean_length": length,
        "completions/distinct_2": diversity,
    }


def test_the_best_evaluation_is_the_last_that_was_a_gain():
    rules = StopRules(metric="reward")
    assert rules.best(evaluations(1.0, 3.0, 2.0, 3.0))["step"] == 10  # a tie is no gain
    assert rules.best(evaluations(1.0, 0.5))["step"] == 0
    assert rules.best([]) is None
    assert StopRules().best(evaluations(1.0)) is None
    some = StopRules(metric="reward", min_delta=0.5)
    assert some.best(evaluations(1.0, 1.4, 1.6, 2.0))["step"] == 20


@pytest.mark.parametrize(
    ("rules", "best"),
    [
        ({"metric": "loss"}, 10),
        ({"metric": "objective/kl"}, 10),
        ({"metric": "rewards/rejected"}, 10),
        ({"metric": "rewards/margins"}, 20),
        ({"metric": "rewards/helpfulness/mean"}, 20),
        ({"metric": "mine", "mode": "min"}, 10),
        ({"metric": "mine", "mode": "max"}, 20),
        ({"metric": "loss", "mode": "max"}, 20),
    ],
)
def test_which_way_a_metric_gets_better_is_known_or_said(rules, best):
    rows = evaluations(2.0, 1.0, 3.0, name=rules["metric"])
    assert StopRules(**rules).best(rows)["step"] == best


def test_auto_is_the_reward_then_the_accuracy_then_the_loss():
    auto = StopRules(metric="auto")
    assert auto.metric_of({"loss": 1, "rewards/accuracies": 0.5, "reward": 0}) == "reward"
    assert auto.metric_of({"loss": 1, "rewards/accuracies": 0.5}) == "rewards/accuracies"
    assert auto.metric_of({"loss": 1}) == "loss"
    assert auto.best(evaluations(2.0, 1.0, name="loss"))["step"] == 10


def test_patience_counts_evaluations_since_the_last_gain():
    rules = StopRules(metric="reward", patience=2)
    history = evaluations(1.0, 2.0, 1.5, 2.0)
    assert [rules.reason(history[:n]) is None for n in range(5)] == [True, True, True, True, False]
    why = rules.reason(history)
    assert why == "reward has not improved on 2 of step 10 in 2 evaluations (stop.patience is 2)"
    assert "on 1 before the first step" in rules.reason(evaluations(1.0, 0.9, 0.8))
    assert rules.reason(evaluations(1.0, 2.0, 1.5, 2.1)) is None


def test_an_evaluation_without_its_metric_is_no_gain():
    rules = StopRules(metric="reward", patience=1)
    lost = [{"step": 0, "reward": 1.0}, {"step": 10, "objective/kl": 0.1}]  # all rewards failed
    assert rules.best(lost)["step"] == 0 and rules.reason(lost)


@pytest.mark.parametrize(
    ("rules", "last", "why"),
    [
        ({"kl_budget": 5.0}, {"kl": 5.0}, None),
        ({"kl_budget": 5.0}, {"kl": 5.1}, "objective/kl is 5.1 nats per response"),
        ({"length_ratio": 2.0}, {"length": 40.0}, None),
        ({"length_ratio": 2.0}, {"length": 41.0}, "41 tokens, 2.05 times the 20 before"),
        ({"length_ratio": 2.0}, {"length": 10.0}, None),
        ({"length_ratio": 2.0}, {"length": 9.0}, "9 tokens, 0.45 times the 20 before"),
        ({"min_diversity": 0.5}, {"diversity": 0.4}, None),
        ({"min_diversity": 0.5}, {"diversity": 0.2}, "is 0.2, 0.25 of the 0.8 before"),
        ({}, {"kl": 99.0, "length": 900.0, "diversity": 0.0}, None),
    ],
)
def test_an_alarm_says_what_it_saw_and_which_limit(rules, last, why):
    found = StopRules(**rules).reason([answers(), answers(**last, step=10)])
    assert found == why if why is None else why in found
    for name in rules if why else ():
        assert f"(stop.{name} is {rules[name]:.4g})" in found


def test_a_divergence_that_is_not_finite_is_over_every_budget():
    """Evaluations hold finite numbers only."""
    first, last = answers(), answers(step=10)
    del last["objective/kl"]
    assert "is nan nats" in StopRules(kl_budget=1e9).reason([first, last])


def test_several_alarms_are_all_said():
    rules = StopRules(kl_budget=1.0, length_ratio=2.0)
    why = rules.reason([answers(), answers(kl=2.0, length=60.0, step=10)])
    assert "kl_budget" in why and "length_ratio" in why


def test_what_the_first_evaluation_lacks_is_named_with_what_it_has():
    with pytest.raises(
        ValueError, match=r"stop\.metric reads rewards/margin, which .*did you mean"
    ):
        StopRules(metric="rewards/margin", mode="max").check({"rewards/margins": 0.1})
    with pytest.raises(ValueError, match=r"stop\.kl_budget reads objective/kl, .*it has: reward"):
        StopRules(kl_budget=1.0).check({"step": 0, "reward": 0.1})
    with pytest.raises(ValueError, match=r"min_diversity compares with .* which is 0"):
        StopRules(min_diversity=0.5).check(answers(diversity=0.0))
    StopRules(metric="auto", kl_budget=1.0, length_ratio=3.0).check(answers() | {"reward": 0.0})


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_numbers_out_of_range_are_refused(value):
    for name in ("kl_budget", "length_ratio", "min_diversity"):
        with pytest.raises(ValueError, match=rf"stop\.{name} must be"):
            StopRules(**{name: value})
    with pytest.raises(ValueError, match=r"stop\.min_delta must be"):
        StopRules(metric="loss", min_delta=value)


def test_distinct_2_is_distinct_bigrams_of_all_answers_over_all_of_them():
    assert distinct([[1, 2, 3], [1, 2]], 2) == pytest.approx(2 / 3)
    assert distinct([[1, 1, 1, 1, 1]], 2) == 0.25
    assert distinct([[5], []], 2) == 0.0  # nothing is not diverse
    rollout = Rollout.from_lists([np.array([9])] * 2, [[[1, 2, 3]], [[1, 2]]])
    found = diversity_metrics(rollout)
    assert found == {"completions/distinct_2": pytest.approx(2 / 3)}


def test_without_rules_answers_of_one_token_end_nothing():
    found = [answers(diversity=0.0), answers(diversity=0.0, step=10)]
    assert StopRules().reason(found) is None


def drifting(*pairs):
    """Evaluations of (reward, KL)."""
    return [{"step": i, "reward": r, "objective/kl": kl} for i, (r, kl) in enumerate(pairs)]


def test_the_slope_is_the_reward_per_root_of_kl_over_two_evaluations():
    rows = drifting((0.0, 0.0), (0.5, 1.0), (1.0, 4.0), (1.1, 6.0), (1.2, 9.0))
    # 1.0 over 2, then 0.6 over sqrt(6) - 1, then 0.2 over 1: 0.5, 0.41, 0.2
    assert slope(rows[0], rows[2]) == pytest.approx(0.5)
    rules = StopRules(min_slope=0.5)
    assert [rules.reason(rows[:n]) is None for n in range(6)] == [True] * 5 + [False]
    assert "gained 0.2 reward per sqrt(nat)" in rules.reason(rows)
    assert StopRules(min_slope=0.3).reason(rows) is None


def test_a_policy_that_does_not_drift_pays_nothing_for_its_reward():
    assert (
        slope({"reward": 1.0, "objective/kl": 2.0}, {"reward": 0.0, "objective/kl": 1.0})
        == math.inf
    )
    rows = drifting((0.0, 0.0), (0.5, 1.0), (1.0, 4.0), (0.9, 3.0), (0.8, 2.0))
    assert StopRules(min_slope=0.9).reason(rows) is None
    lost = [*rows[:3], {"step": 9, "reward": 0.5}]  # no KL was finite
    assert StopRules(min_slope=0.9).reason(lost) is None


def test_auto_is_the_first_rule_that_the_evaluations_can_answer():
    auto = StopRules(auto=True)
    rules = dict(AUTO_RULES)
    online = {"reward": 0.1, "completions/distinct_2": 0.6}
    share = rules["min_diversity"]
    assert auto.resolved(online) == StopRules(metric="auto", min_diversity=share)
    referred = online | {"objective/kl": 0.0}
    assert auto.resolved(referred) == StopRules(metric="auto", min_slope=rules["min_slope"])
    fixed = {"loss": 0.7, "rewards/accuracies": 0.5}
    assert auto.resolved(fixed) == StopRules(metric="auto", patience=rules["patience"])
    mine = StopRules(auto=True, metric="loss", length_ratio=2.0)
    assert mine.resolved(online) == StopRules(metric="loss", length_ratio=2.0)
    assert StopRules().resolved(online) == StopRules()
    auto.check(online)


def test_auto_ends_a_run_by_its_rule_and_names_it():
    # reward per root of KL over two evaluations: 0.4 / 1, then 0.3 / 2
    rows = [
        answers(step=i) | {"reward": reward, "objective/kl": kl}
        for i, (reward, kl) in enumerate([(0.0, 0.0), (0.3, 0.25), (0.4, 1.0), (0.6, 6.25)])
    ]
    auto = StopRules(auto=True)
    assert auto.reason(rows[:3]) is None and "(stop.min_slope is" in auto.reason(rows)
    assert auto.best(rows)["step"] == 3
    alike = [{n: x for n, x in row.items() if n != "objective/kl"} for row in rows[:2]]
    alike[1]["completions/distinct_2"] *= 0.9 * dict(AUTO_RULES)["min_diversity"]
    assert "(stop.min_diversity is" in auto.reason(alike)
