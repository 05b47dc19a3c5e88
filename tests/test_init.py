"""`jalign init` writes a config that can be run, with numbers for its kind of run and none of the
demonstration's.
"""

import pytest

from jalign.algorithms import ALGORITHMS
from jalign.config.read import read_config
from tests._cli import call


@pytest.fixture
def init(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    return lambda *args: call(["init", *args], capsys)


def test_a_config_for_ones_own_model_and_data_is_written_and_read(init):
    own = ["--model", "org/model-1B", "--data", "pairs.jsonl.gz"]
    code, said = init("mine.yaml", "--algorithm", "dpo", *own)
    assert code == 0 and "jalign train mine.yaml" in said.out
    config = read_config(["mine.yaml"])
    assert (config.model.path, config.data.train) == ("org/model-1B", "pairs.jsonl.gz")
    assert config.model.lora.rank == 16 and config.optim.learning_rate == pytest.approx(1e-5)
    assert not config.sample.score and config.data.max_response_len == 512
    code, said = init("mine.yaml", "--algorithm", "dpo")
    assert code == 3 and "mine.yaml is there already" in said.err
    assert init("full.yaml", "--algorithm", "sft", *own, "--lora", "0")[0] == 0
    full = read_config(["full.yaml"])
    assert full.model.lora is None and full.optim.learning_rate == 2e-5


def test_the_data_of_the_package_keep_their_own_held_out_part(init):
    code, said = init("mine.yaml", "--algorithm", "dpo", "--data", "embedded")
    assert code == 0, said.err
    assert read_config(["mine.yaml"]).data.holdout is None


def test_online_algorithms_are_given_their_reward(init):
    code, said = init("a.yaml", "--algorithm", "grpo")
    assert code == 3 and "give --reward, one of" in said.err
    code, said = init("a.yaml", "--algorithm", "dpo", "--reward", "exact_match")
    assert code == 3 and "--reward does not apply: dpo learns from no rewards" in said.err
    assert init("a.yaml", "--algorithm", "grpo", "--reward", "exact_match")[0] == 0
    assert read_config(["a.yaml"]).reward.functions == {"exact_match": 1.0}
    assert init("b.yaml", "--algorithm", "rloo", "--reward", "runs/rm")[0] == 0
    assert read_config(["b.yaml"]).reward.model == "runs/rm"


@pytest.mark.parametrize(
    "name", [*list(ALGORITHMS)[::12], "ppo_ema", "gkd_on_policy", "spin_online"]
)
def test_what_is_written_is_valid_for_every_kind_of_algorithm(init, name):
    row = ALGORITHMS[name]
    args = ["--teacher", "t"] if row.needs_teacher else []
    if {"scores", "step_scores", "win_probs", "reward_parts"} & set(row.rollout_inputs()):
        args += ["--reward", "repetition"]
    code, said = init("c.yaml", "--algorithm", name, "--model", "m", "--data", "d.jsonl", *args)
    assert code == 0, said.err
