"""Runs that diverged although every number is finite, told from those that only overfit."""

import math

import numpy as np
import pytest

from jalign.data.examples import Example, Examples
from jalign.train.divergence import Trend, chance, diverged, worse
from jalign.train.stopping import StopRules

DPO = {"loss": 0.6931, "rewards/margins": 0.0, "logps/chosen": -40.0}


def after(**changes):
    return DPO | {name.replace("_", "/", 1): x for name, x in changes.items()}


@pytest.mark.parametrize(
    ("last", "sign"),
    [
        (after(loss=2.25, rewards_margins=-3.0), "the loss is 2.25, and was 0.6931"),
        (after(loss=2.25, rewards_margins=3.0), None),  # overfitting: the order is still learned
        (after(loss=1.5, rewards_margins=-0.1), None),  # a rise by less than 1
        (after(loss=0.3, rewards_margins=2.0, logps_chosen=-110.0), None),  # likelihoods fall
        (after(loss=0.81, rewards_margins=0.06, logps_chosen=-244.0), "knows nothing has -244"),
        (after(loss=0.81, rewards_margins=0.06, logps_chosen=-2e4), "logps/chosen is -2e"),
        ({"rewards/margins": 1.0}, "not finite"),
    ],
)  # fmt: skip
def test_garbage_is_told_from_overfitting(last, sign):
    found = diverged(DPO, last, 1.0, by_chance=-244.0)
    assert found is None if sign is None else sign in found
    assert diverged(DPO, last, 0.0, by_chance=-244.0) is None  # switched off


def test_a_large_loss_may_rise_by_its_own_size_and_a_model_may_begin_at_random():
    assert diverged({"loss": 2.5}, {"loss": 4.9}, 1.0) is None
    assert "the loss is 5.1" in str(diverged({"loss": 2.5}, {"loss": 5.1}, 1.0))
    assert diverged({"loss": -3.0}, {"loss": -0.5}, 1.0) is None
    fresh = DPO | {"logps/chosen": -240.0}
    assert diverged(fresh, DPO | {"logps/chosen": -250.0}, 1.0, by_chance=-244.0) is None


def test_an_evaluation_during_the_run_needs_a_second_one_that_agrees():
    rules, bad = StopRules(), after(loss=9.0, rewards_margins=-3.0)
    assert rules.reason([DPO, bad]) is None
    assert rules.reason([DPO, bad, DPO]) is None
    assert "training diverged: the loss is 9" in rules.reason([DPO, bad, bad])
    assert "stop.divergence is 1" in rules.diverged([DPO, bad])  # which the end of a run asks
    assert rules.diverged([DPO]) is None and rules.diverged([]) is None
    assert not rules.given and not StopRules(divergence=0.0).given
    with pytest.raises(ValueError, match=r"stop\.divergence must be >= 0, got -1"):
        StopRules(divergence=-1.0)


def test_without_held_out_data_the_last_steps_are_compared_with_the_first():
    trend, nan = Trend(), math.nan
    trend.add(2, [DPO, after(loss=0.9, rewards_margins=-0.1)])
    trend = Trend(**trend.facts())  # a checkpoint came in between
    assert trend.diverged(1.0, -math.inf) is None
    trend.add(4, [after(loss=9.0, rewards_margins=-3.0), after(loss=nan, rewards_margins=nan)])
    assert "the loss is 4.95" in trend.diverged(1.0, -math.inf)  # the mean of 0.9 and 9
    assert trend.diverged(0.0, -math.inf) is None
    old = Trend()  # of a checkpoint that kept none
    old.add(7, [DPO, after(loss=9.0)])
    assert old.first is None and old.diverged(1.0, -math.inf) is None


def test_chance_counts_the_scored_tokens_of_preferred_responses():
    def example(*lengths, label=None):
        responses = tuple(np.arange(n, dtype=np.int32) for n in lengths)
        scored = tuple(np.arange(n) > 0 for n in lengths)  # the first token of each is not scored
        extras = {} if label is None else {"label": np.float32(label)}
        return Example(np.arange(2, dtype=np.int32), responses, scored, extras)

    pairs = Examples.from_list([example(3, 9), example(5, 4)])
    assert chance(pairs, 100) == pytest.approx(-3 * math.log(100))
    binary = Examples.from_list([example(3, label=0), example(7, label=1), example(9, label=1)])
    assert chance(binary, 100) == pytest.approx(-7 * math.log(100))


def test_what_training_made_worse_is_said():
    assert worse([DPO, after(loss=0.60, logps_chosen=-55.0)]) == []
    assert worse([DPO]) == []
    loss, chosen = worse([DPO, after(loss=0.75, logps_chosen=-61.0)])
    assert "loss is worse than before training: 0.6931 before, 0.75 after" in loss
    assert "logps/chosen was -40 nats and is -61" in chosen
    (reward,) = worse([{"reward": 0.5}, {"reward": 0.25}])
    assert "reward is worse" in reward
