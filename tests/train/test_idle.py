"""Rollouts that teach nothing are counted, said, and end a run in the end; others never do."""

import json
import logging

import pytest

from jalign.train.idle import FAILURES, Idle

FAILED = {"judge": "reward judge failed for all 8 responses: status 402: no credit left"}
GOOD = {"taught": True, "rewarded": True, "failures": {}}
EQUAL = {"taught": False, "rewarded": True, "failures": {}}
SILENT = {"taught": False, "rewarded": False, "failures": {}}
FAILING = {"taught": False, "rewarded": False, "failures": FAILED}


def after(*rollouts, limit=5):
    idle = Idle(limit)
    for rollout in rollouts:
        idle.add(**rollout)
    return idle


def test_a_run_goes_on_while_now_and_then_a_rollout_teaches_something():
    for idle in (
        after(EQUAL),
        after(*[EQUAL] * 4, GOOD, *[EQUAL] * 4),
        after(GOOD, FAILING, FAILING, GOOD, FAILING),
        after(SILENT, SILENT, GOOD),
        after({"taught": True, "rewarded": True, "failures": FAILED}),  # of some responses
    ):
        assert idle.hopeless is idle.reason is None
        assert idle.verdict is None


def test_it_ends_where_too_many_rollouts_in_a_row_teach_nothing():
    idle = after(GOOD, *[EQUAL] * 5)
    assert "5 rollouts in a row taught nothing" in idle.reason and "equal" in idle.reason
    assert idle.verdict == idle.reason
    assert "max_idle" in after(*[SILENT] * 5).reason


def test_it_ends_sooner_where_rewards_fail_and_at_once_where_they_never_worked():
    idle = after(FAILING)
    assert idle.hopeless.endswith("status 402: no credit left") and "first rollout" in idle.hopeless
    assert after(GOOD, *[FAILING] * (FAILURES - 1)).reason is None
    idle = after(GOOD, *[FAILING] * FAILURES)
    assert "3 rollouts in a row have no reward at all" in idle.reason and "402" in idle.reason
    assert idle.hopeless is None
    assert after(GOOD, FAILING, FAILING, limit=2).reason


def test_a_run_without_a_single_reward_has_learned_nothing_however_short_it_was():
    assert after(SILENT).reason is None and "nothing was learned in 1 " in after(SILENT).verdict
    assert after(EQUAL, EQUAL).verdict is None  # that may be another time
    assert Idle(5).verdict is None


@pytest.mark.parametrize("kind", [EQUAL, SILENT, FAILING])
def test_a_limit_of_zero_lets_a_run_go_on(kind):
    idle = after(*[kind] * 30, limit=0)
    assert idle.hopeless is idle.reason is idle.verdict is None


def test_a_run_that_goes_on_counts_on_and_takes_a_rollout_before_it_ends_again():
    facts = json.loads(json.dumps(after(GOOD, *[EQUAL] * 4).facts()))
    idle = Idle(5).after(facts)
    assert idle.in_a_row == 4 and idle.reason is None
    idle.add(**EQUAL)
    assert idle.reason
    ended = Idle(5).after(idle.facts())
    assert ended.reason is None  # what failed may be mended
    ended.add(**GOOD)
    assert ended.reason is ended.verdict is None
    assert Idle(5).after({}) == Idle(5)  # of a checkpoint that knows of no counts


def test_the_first_and_the_half_of_too_many_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        after(*[EQUAL] * 9, limit=8)
    said = [r.getMessage() for r in caplog.records]
    assert [s.split("(")[1].split(" in a row")[0] for s in said if "equal" in s] == ["1", "4"]
