"""Options that contradict the algorithm are refused from Python as from the command line."""

from dataclasses import replace

import pytest

from jalign.algorithms import ALGORITHMS, get
from jalign.core import AuxLoss
from jalign.losses import kl_k3
from jalign.options import ModelConfig, OptimConfig, RewardConfig, RolloutConfig, RunOptions

REWARD = RewardConfig(functions={"exact_match": 1.0})


def options(name, **changes):
    row = get(name) if isinstance(name, str) else name
    return RunOptions(algorithm=row, **changes)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (options("grpo", reward=REWARD), "grpo samples its own data: set steps"),
        (options("grpo", steps=1), "grpo learns from rewards: set reward.functions"),
        (options("dpo", rollout=RolloutConfig(epochs=2)), "rollout does not apply to dpo"),
        (options("gkd"), "gkd learns from a teacher: set model.reference"),
        (options("dpo", model=ModelConfig(quant="nf4")), "model.quant: nf4 freezes the matrices"),
        (options(get("dpo").with_hyper(label_smoothing=0.7)), "label_smoothing must be"),
        (options("dpo", optim=OptimConfig(name="lion")), "optim.learning_rate: .* set it for lion"),
        (
            options(
                "grpo", steps=1, reward=REWARD, rollout=RolloutConfig(batch_invariant=True, top_k=5)
            ),
            "rollout.batch_invariant: the trainer's log-probs ignore the cut; set rollout.top_k",
        ),
        (
            options(
                "grpo", steps=1, reward=REWARD, rollout=RolloutConfig(replay_router=True, rows=4)
            ),
            "rollout.replay_router: refilled rows record no routes; set rollout.rows to 0",
        ),
        (options("bco", batch_size=1), "bco compares the examples of a batch"),
    ],
)
def test_a_contradiction_is_refused_with_its_remedy(run, message):
    with pytest.raises(ValueError, match=message):
        run.check()


def test_options_without_a_contradiction_are_returned():
    run = options("grpo", steps=1, reward=REWARD)
    assert run.check() is run and run.optim.learning_rate == 1e-6


def test_a_row_of_ones_own_meets_the_rules_by_its_fields_alone():
    """What is a KL term is known from its field, not from its name."""
    drift = {"drift": AuxLoss(kl_k3, 0.1, get("grpo").reduce, is_kl=True)}
    mine = replace(get("rloo_token"), name="mine", aux_losses=drift)
    run = options(mine, steps=1, reward=REWARD)
    with pytest.raises(ValueError, match=r"in its loss \(drift: 0.1\): set one of them to 0"):
        run.check()
    options(mine.with_hyper(kl_coef=0.0), steps=1, reward=REWARD).check()


def test_what_a_row_follows_is_a_field_of_it():
    gradients = {name for name, row in ALGORITHMS.items() if row.policy_gradient}
    assert {"grpo", "ppo", "nash_md", "spo"} <= gradients
    assert not {"sppo_samples", "online_dpo", "raft", "dpo"} & gradients
    responses = {name for name in gradients if not ALGORITHMS[name].loss_per_token}
    assert {"gspo", "rloo", "spo"} <= responses and "grpo" not in responses
    assert [name for name, row in ALGORITHMS.items() if row.scores_steps] == ["prm"]
    assert get("kto").with_hyper(undesirable_weight=2.0).class_weights == (1.0, 2.0)
    assert get("dpo").class_weights is None
