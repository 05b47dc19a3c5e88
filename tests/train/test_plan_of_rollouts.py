"""What is said of rollouts before they begin."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jalign import algorithms
from jalign.config import Config, DataConfig, RewardConfig, RolloutConfig
from jalign.config.build import options_of
from jalign.run import rollouts as build_online
from jalign.train.rollout_spec import RolloutSpec

ITERATIVE = {
    name: row.iteration[0]
    for name, row in algorithms.ALGORITHMS.items()
    if row.experience and row.experience.iterative
}


def plan(**more):
    numbers = {"batch_size": 4, "prompts": 8, "epochs": 1, "responses": 2, "response_len": 16}
    return RolloutSpec(**numbers | more, max_tokens=64)


@pytest.mark.parametrize(
    ("name", "warned"),
    [
        *[(name, True) for name in ("reinforce", "reinforce_value", "remax")],
        *[(name, True) for name in ("nash_md", "nash_md_token", "nash_ema")],
        *[(name, False) for name in ("rloo", "grpo", "ppo", "cispo", "online_dpo", "raft", "spo")],
    ],
)
def test_several_steps_on_one_rollout_need_a_ratio(name, warned):
    row = algorithms.get(name)
    numbers, *warnings = plan().describe(row)
    assert "2 optimizer steps each" in numbers
    assert (len(warnings) == 1 and name in warnings[0]) if warned else not warnings
    assert len(plan(batch_size=8).describe(row)) == 1


def config_of(name, **more):
    """A run of 4 prompts per step; hyper-parameters stand beside the sections."""
    sections = {"rollout", "data"} & set(more)
    given = {n: more.pop(n) for n in sections}
    reward = RewardConfig() if name == "spin_online" else RewardConfig(functions={"distinct": 1.0})
    steps = more.pop("steps", 128)
    config = Config(
        algorithm={"name": name} | more, steps=steps, batch_size=4, reward=reward, **given
    )
    return options_of(config)


def described(config):
    return build_online.spec_of(config).describe(config.algorithm)


@pytest.mark.parametrize("name", ITERATIVE)
def test_where_a_method_learns_from_its_reference_a_rollout_lasts_as_long_as_that_stands(name):
    assert len(ITERATIVE) == 7
    for sync, epochs in ((64, 1), (6, 1), (6, 3)):
        config = config_of(name, **{ITERATIVE[name]: sync}, rollout=RolloutConfig(epochs=epochs))
        plan = build_online.spec_of(config)
        assert (plan.steps, plan.prompts) == (sync, sync * 4 // epochs)
        assert len(described(config)) == 1


@pytest.mark.parametrize("name", [n for n, of in ITERATIVE.items() if of == "ref_sync_steps"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rollout": RolloutConfig(prompts=8)}, "ref_sync_steps to 2, or rollout.prompts to 256"),
        ({"ref_sync_steps": 5, "rollout": RolloutConfig(epochs=3)}, "set ref_sync_steps to 6"),
        ({"ref_sync_steps": 0}, "the first policy"),
        ({"ref_sync_steps": 2, "ref_mixup_alpha": 0.5}, r"ref_mixup_alpha: 0.5"),
    ],
)
def test_samples_of_another_policy_than_the_reference_are_warned_of(name, given, said):
    _, warning = described(config_of(name, **given))
    assert warning.startswith(f"warning: {name} learns from samples of its reference")
    assert said in warning


def test_samples_of_another_policy_than_that_of_the_last_iteration_are_warned_of():
    _, warning = described(config_of("inpo", rollout=RolloutConfig(prompts=8)))
    assert "inpo learns from samples of the policy of the last iteration" in warning
    assert "last_sync_steps to 2, or rollout.prompts to 256" in warning


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rollout": RolloutConfig(prompts=8)}, "leave out rollout.prompts"),
        ({"rollout": RolloutConfig(epochs=2)}, "set rollout.epochs to 1"),
        ({"steps": 3}, "set an even number"),
        ({"rollout": RolloutConfig(responses=2)}, "2 responses of the policy with 1 of the second"),
        ({"half_step": -0.5}, "half_step must be >= 0"),
    ],
)
def test_an_extragradient_needs_a_rollout_per_step_and_two_steps_per_update(given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        config_of("egpo", **given)


@pytest.mark.parametrize("given", [{"last_sync_steps": 0}, {"last_mixup_alpha": 0.0}])
def test_a_second_reference_that_never_moves_is_refused(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))} must be"):
        config_of("inpo", **given)


@pytest.mark.parametrize(("name", "number"), [("dno_prct", "ref_sync_steps"), ("grpo", "prompts")])
def test_a_rollout_that_is_longer_than_the_run_is_warned_of(name, number):
    rollout = RolloutConfig(prompts=0 if name == "dno_prct" else 256)
    _, warning = described(config_of(name, steps=20, rollout=rollout))
    assert "20 steps" in warning and "sampled for 64" in warning and number in warning
    assert len(described(config_of(name, steps=64, rollout=rollout))) == 1


def test_the_longest_response_is_what_is_sampled_whatever_stands_beside_it():
    """Pretraining text, or responses of the data, make the arrays wider."""
    rollout, text = RolloutConfig(max_new_tokens=24), DataConfig(pretraining="embedded")
    plain = config_of("dr_grpo", rollout=rollout)
    beside = config_of("dr_grpo", rollout=rollout, data=text, ptx_coef=0.05)
    for config, width in ((plain, 24), (beside, 512)):
        plan = build_online.spec_of(config)
        assert plan.response_len == width and "of at most 24 tokens" in described(config)[0]
        mask = jnp.arange(width)[None] < jnp.array([[24], [7]])
        fields = {"mask": mask, "present": jnp.ones(2, bool)}
        weights, divisor = config.algorithm.reduce(fields)
        assert float(divisor) == 48 and np.asarray(weights).sum() == 31
