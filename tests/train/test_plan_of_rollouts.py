"""What is said of rollouts before they begin."""

import pytest

from jalign import algorithms
from jalign.train.online import Plan


def plan(**more):
    numbers = {"batch_size": 4, "prompts": 8, "epochs": 1, "responses": 2, "response_len": 16}
    return Plan(**numbers | more, max_tokens=64)


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        *[(name, True) for name in ("reinforce", "reinforce_value", "remax")],
        *[(name, False) for name in ("rloo", "grpo", "ppo", "cispo", "online_dpo", "raft")],
    ],
)
def test_several_steps_on_one_rollout_need_a_ratio(name, warned):
    row = algorithms.get(name)
    numbers, *warnings = plan().describe(row)
    assert "2 optimizer steps each" in numbers
    assert (len(warnings) == 1 and name in warnings[0]) if warned else not warnings
    assert len(plan(batch_size=8).describe(row)) == 1
