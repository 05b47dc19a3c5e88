"""Several roles in one online run: what they share, and what is learnt beside them. 8 devices."""

import json

import jax
import numpy as np
import pytest
from rich.console import Console

from jalign.cli.export import export
from jalign.config import Config, DataConfig, RewardConfig
from jalign.config.read import read_config
from jalign.run import folder as runs
from jalign.run.decoders import Source
from jalign.run.devices import mesh_of
from jalign.run.policy import tokenizer_of
from jalign.run.roles import load_roles
from jalign.train.preemption import ExitCode
from tests._runs import ONLINE, leaves, rows, run
from tests.tiny_run import arguments


def texts(folder):
    return {"data.pretraining": str(folder / "pairs.jsonl.gz"), "data.max_response_len": 12}


def test_pretraining_text_beside_the_samples_becomes_likelier(folder):
    """The reward says nothing: only the text moves the policy."""
    given = ONLINE | texts(folder) | {"steps": 8, "reward.functions": '{"repetition": 0.0}'}
    assert run(folder, "ptx", "ppo_ptx", **given, **{"algorithm.ptx_coef": 1.0}) == ExitCode.OK
    found = [row["pretraining/nll"] for row in rows(folder, "ptx")]
    assert found[-1] < found[0] - 0.1


def test_a_run_with_pretraining_text_goes_on_with_the_texts_that_are_next(folder):
    given = ONLINE | texts(folder) | {"log_every": 1}
    run(folder, "whole", "ppo_ptx", **given, steps=3)
    run(folder, "cut", "ppo_ptx", **given, steps=1)
    run(folder, "cut", "ppo_ptx", **given, steps=3)
    assert leaves(folder, "cut", 3) == leaves(folder, "whole", 3)


def test_samples_are_learnt_from_as_without_the_text(folder):
    """At a weight so small that only the loss of the samples moves the policy."""
    plain = ONLINE | {"optim.name": "sgd", "log_every": 1, "steps": 1, "data.max_response_len": 12}
    run(folder, "plain", "ppo", **plain)
    run(folder, "beside", "ppo_ptx", **plain | texts(folder) | {"algorithm.ptx_coef": 1e-12})
    (a,), (b,) = rows(folder, "plain"), rows(folder, "beside")
    for name in ("policy_loss", "value/loss", "entropy", "grad_norm", "reward"):
        if name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, err_msg=name)
    assert {"grad_norm", "reward", "value/loss"} <= set(a)


def test_weight_and_text_go_together():
    reward = RewardConfig(functions={"sentiment_reward": 1.0})
    with pytest.raises(ValueError, match=r"for ppo_ptx they are 0\.05 and None"):
        Config(algorithm={"name": "ppo_ptx"}, steps=1, reward=reward)
    with pytest.raises(ValueError, match=r"for ppo they are 0\.0 and embedded"):
        data = DataConfig(pretraining="embedded")
        Config(algorithm={"name": "ppo"}, steps=1, reward=reward, data=data)
    with pytest.raises(ValueError, match=r"for dpo they are 0\.0 and embedded"):
        Config(algorithm={"name": "dpo"}, data=DataConfig(pretraining="embedded"))


def test_a_shared_critic_is_a_head_on_the_policy(folder):
    given = ONLINE | {"model.critic": "shared"}
    assert run(folder, "shared", "ppo", **given) == ExitCode.OK
    _, _, state, _ = runs.newest(str(folder / "shared"))
    names = {str(path[0].key) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)}
    assert "value" in names and not names & {"policy", "critic"}
    losses = [row["value/loss"] for row in rows(folder, "shared")]
    assert np.isfinite(losses).all() and losses[-1] != losses[0]
    name = "value/explained_variance"
    explained = [row[name] for row in rows(folder, "shared") if name in row]
    assert explained and max(explained) < 1
    export([str(folder / "shared"), str(folder / "exported")], Console(quiet=True))
    config = json.loads((folder / "exported" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]


def test_policy_reference_critic_and_reward_model_stand_on_one_frozen_base(folder):
    lora = {"model.lora.rank": 2}
    run(folder, "rm", "bradley_terry", **lora, steps=2)
    given = ONLINE | lora | {"reward.functions": "{}", "reward.model": str(folder / "rm")}
    assert run(folder, "perl", "ppo", **given) == ExitCode.OK
    config = read_config(arguments(folder, "perl2", "ppo", **given))
    mesh = mesh_of(config.mesh)
    model = load_roles(config, Source(mesh), tokenizer_of(config))
    judge = runs.reward_model(str(folder / "rm"), mesh, model.shared_base)

    def places(tree):
        """Where the shards of each array lie in memory."""
        return {
            jax.tree_util.keystr(path): [
                shard.data.unsafe_buffer_pointer() for shard in x.addressable_shards
            ]
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }

    policy, critic = places(model.base["policy"]), places(model.base["critic"])
    assert policy and policy == critic
    state = places(judge._split[1])
    assert {name: state[name] for name in policy} == policy
    own = places(model.params["policy"])  # adapters are everyone's own
    taken = {place for found in state.values() for place in found}
    assert not any(place in taken for found in own.values() for place in found)
