"""A run described wrongly is refused with the key, what is allowed and the nearest right one."""

import pytest

from jalign.config.read import ConfigError, read_config


@pytest.fixture
def config(tmp_path):
    def write(text):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        return str(path)

    return write


DPO = "algorithm: {name: dpo, beta: 0.2}\n"


def test_a_file_and_overrides_fill_the_config(config):
    got = read_config(
        [config(DPO + "optim: {learning_rate: 5e-6}\n"), "--algorithm.beta", "0.4", "--seed", "3"]
    )
    assert got.algorithm.hyper == {"beta": 0.4} and got.seed == 3
    assert got.optim.learning_rate == 5e-6  # YAML 1.1 reads it as a string


def test_lora_is_a_section_of_its_own(config):
    assert read_config([config(DPO)]).model.lora is None
    assert read_config([config(DPO), "--model.lora.rank", "4"]).model.lora.rank == 4


ONLINE = "algorithm: {}\nsteps: 1\nreward: {{functions: {{sentiment_reward: 1}}}}\n"


@pytest.mark.parametrize(
    ("text", "args", "message"),
    [
        (
            DPO,
            ["--optim.learning_rte", "1"],
            "no option 'optim.learning_rte'; did you mean 'optim.learning_rate'",
        ),
        (DPO, ["--sed", "1"], "no option 'sed'; did you mean 'seed'"),
        (
            DPO,
            ["--model.quant", "w8a7"],
            "must be none, nf4, int8, w8a8, fp8, got 'w8a7'; did you mean 'w8a8'",
        ),
        (DPO, ["--model.quant", "3"], "must be none, nf4, int8, w8a8, fp8, got '3'"),
        (
            DPO + "optim: {learningrate: 1}",
            [],
            "no option 'optim.learningrate'; did you mean 'optim.learning_rate'",
        ),
        ("algoritm: {name: dpo}", [], "no option 'algoritm'; did you mean 'algorithm'"),
        ("algorithm: {name: dpoo}", [], "no algorithm 'dpoo'; did you mean 'dpo'"),
        (
            "algorithm: {name: dpo, bta: 1}",
            [],
            "dpo has no hyper-parameter 'bta'; did you mean 'beta'",
        ),
        ("algorithm: {name: dpo, beta: high}", [], "beta must be a number, got 'high'"),
        ("algorithm: {beta: 1}", [], "algorithm needs a name"),
        (DPO, ["--optim.learning_rate", "x"], "optim.learning_rate"),
        (DPO, ["--optim.name", "adam"], "optim.name"),
        (DPO + "seed: 1\nseed: 2", [], "key 'seed' is given twice, line 3"),
        (
            "algorithm: {name: simpo}\nreference: cached",
            [],
            "reference: cached does not apply: simpo reads no reference",
        ),
        (
            "algorithm: {name: kto}\nreference: cached",
            [],
            "mismatched response an example gets changes",
        ),
        ("algorithm: {name: kto}\nbatch_size: 1", [], "batch_size must be >= 2"),
        (DPO + "batch_size: 0", [], "batch_size must be >= 1, got 0"),
        (DPO + "epochs: 0", [], "set steps > 0, or epochs > 0"),
        (DPO + "sample: {score: sentiment}", [], "sample.score needs sample.prompts"),
        (DPO + "stop: {patience: 3}", [], "stop.patience needs stop.metric: a metric of the"),
        (DPO + "stop: {metric: loss}", [], "set eval_every > 0"),
        (DPO + "stop: {metric: rewads/margins}", [], "did you mean 'rewards/margins'"),
        (DPO + "stop: {patiense: 1}", [], "did you mean 'stop.patience'"),
        (DPO + "stop: {length_ratio: 0.5}", [], "stop.length_ratio must be 0 or above 1, got 0.5"),
        (DPO + "stop: {min_diversity: 1}", [], "stop.min_diversity must be in [0, 1), got 1"),
        (DPO + "stop: {kl_budget: -1}", [], "stop.kl_budget must be >= 0, got -1"),
        (
            DPO + "eval_every: 1\nstop: {kl_budget: 5}",
            [],
            "stop.kl_budget does not apply to dpo: it answers no held-out prompts",
        ),
        (DPO, ["--data.flip_share", "0.4"], "data.flip_share does not apply: set data.flip"),
        (DPO, ["--algorithm.name", "repo+simpo"], "before + stands a wrapper, re_po+NAME"),
        (
            ONLINE.format("{name: egpo}"),
            ["--steps", "10", "--optim.warmup_steps", "8"],
            "warmup_steps must be in 0..5 (the updates of the run), got 8",
        ),
        (ONLINE.format("{name: rloo}") + "rollout: {mixture: 0.9}", [], "rollout.mixture does not"),
        (ONLINE.format("{name: rloo}") + "rollout: {kl_horizon: 9}", [], "there is no kl_target"),
        (
            ONLINE.format("{name: online_dpo}") + "rollout: {kl_target: 9}",
            [],
            "rollout.kl_target does not apply to online_dpo",
        ),
        (
            ONLINE.format("{name: nash_md}") + "rollout: {importance_cap: 2}",
            [],
            "rollout.importance_cap does not apply to nash_md",
        ),
        (
            ONLINE.format("{name: dar}") + "rollout: {importance_cap: 2}",
            [],
            "does not apply to dar: its loss is not linear in the advantage: set rollout.corr",
        ),
        (
            ONLINE.format("{name: humanline+dar}") + "rollout: {importance_cap: 2}",
            [],
            "does not apply to humanline+dar: its loss is not linear in the advantage",
        ),
        (
            ONLINE.format("{name: maxrl}") + "rollout: {responses: 1}",
            [],
            "responses",
        ),
        (
            ONLINE.format("{name: xpo}") + "rollout: {responses: 4}",
            [],
            "rollout.responses must be 2, got 4",
        ),
        (
            ONLINE.format("{name: ppo, kl_k3_coef: 0.1}"),
            [],
            "in its reward (kl_coef: 0.05) and in its loss (kl_k3_coef: 0.1)",
        ),
        (
            ONLINE.format("{name: rloo}"),
            ["--reward.temperature", "2"],
            "reward.temperature does not apply to rloo",
        ),
        (
            ONLINE.format("{name: dapo}") + "model: {path: m, lora: {dropout: 0.1}}",
            [],
            "model.lora.dropout does not apply to dapo",
        ),
        (
            ONLINE.format("{name: ppo_ema}") + "model: {path: m, lora: {}}",
            [],
            "ref_mixup_alpha < 1 does not apply to adapters",
        ),
        (
            "algorithm: {name: dpo, ref_mixup_alpha: 0.5}",
            [],
            "ref_mixup_alpha does nothing if the reference does not move: set ref_sync_steps",
        ),
        (
            ONLINE.format("{name: grpo, kl_k3_coef: 0.0, ref_sync_steps: 8}"),
            [],
            "ref_sync_steps does not apply: with these hyper-parameters grpo reads no reference",
        ),
        ("- a list", [], "must be a mapping"),
        ("a: [unclosed", [], "is not YAML"),
        ("!!python/object/apply:os.system [ls]", [], "is not YAML"),
    ],
)
def test_mistakes_are_named(config, text, args, message):
    with pytest.raises(ConfigError) as error:
        read_config([config(text), *args])
    assert message in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"cannot read config nowhere.yaml"):
        read_config(["nowhere.yaml"])


def algorithm(*args):
    """The algorithm as a config writes it: its name and what was set of its hyper-parameters."""
    row = read_config(list(args)).algorithm
    return {"name": row.name} | dict(row.hyper)


def test_another_algorithm_on_the_command_line_begins_with_its_own_defaults(config, capsys):
    file = config("algorithm: {name: dpo, beta: 0.25, label_smoothing: 0.125}\n")
    assert algorithm(file, "--algorithm.name", "simpo") == {"name": "simpo"}
    said = capsys.readouterr().err
    assert "simpo instead of dpo, whose beta 0.25, label_smoothing 0.125 do not apply" in said
    # what stands beside the name counts, before or after it, and with either spelling
    assert algorithm(file, "--algorithm.beta=3", "--algorithm.name=simpo")["beta"] == 3
    assert algorithm(file, "--algorithm", "simpo", "--algorithm.beta", "4e-1")["beta"] == 0.4


def test_the_same_algorithm_again_keeps_its_numbers(config, capsys):
    file = config(DPO)
    kept = algorithm(file, "--algorithm.name", "dpo", "--algorithm.label_smoothing", "0.1")
    assert kept == {"name": "dpo", "beta": 0.2, "label_smoothing": 0.1}
    assert algorithm(file, "--algorithm", "{name: dpo}") == {
        "name": "dpo"
    }  # in one piece: all of it
    with pytest.raises(ConfigError, match=r"as `algorithm: \{name: dpo\}`, got 'dpo'"):
        algorithm(config("algorithm: dpo\n"))
    assert capsys.readouterr().err == ""


def test_numbers_follow_their_algorithm_through_files_that_include_others(tmp_path, capsys):
    (tmp_path / "base.yaml").write_text("algorithm: {name: dpo, beta: 1e-2}\nbatch_size: 7\n")
    (tmp_path / "same.yaml").write_text("config: base.yaml\nalgorithm: {label_smoothing: 0.3}\n")
    (tmp_path / "other.yaml").write_text("config: same.yaml\nalgorithm: {name: ipo, tau: 0.5}\n")
    same, other = str(tmp_path / "same.yaml"), str(tmp_path / "other.yaml")
    assert algorithm(same) == {"name": "dpo", "beta": 0.01, "label_smoothing": 0.3}
    assert algorithm(other) == {"name": "ipo", "tau": 0.5}
    assert "ipo instead of dpo" in capsys.readouterr().err
    assert algorithm(other, "--config", same)["name"] == "dpo"  # of two files the later one
    assert read_config([other]).batch_size == 7


def test_a_command_without_an_algorithm_says_what_is_a_complete_one(config):
    for args in ([], ["--seed", "1"], [config("seed: 1\n")]):
        with pytest.raises(ConfigError, match=r"jalign train --algorithm dpo .*\n.*quickstart"):
            read_config(args)


def test_configs_that_come_with_jalign_go_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "configs/quickstart.yaml"):
        assert read_config([name]).out == "runs/quickstart"
    assert read_config(["--config", "tiny/grpo"]).out == "runs/tiny/grpo"
    with pytest.raises(ConfigError, match=r"cannot read config tiny/orop: .*mean 'tiny/orpo'"):
        read_config(["tiny/orop"])
    with pytest.raises(ConfigError, match=r"cannot read config stories: .*'leaderboard/stories'"):
        read_config(["stories"])
    (tmp_path / "quickstart").write_text("algorithm: {name: ipo}\n")
    assert algorithm("quickstart") == {"name": "ipo"}  # an existing file comes first


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            ["--stop", "auto"],
            r"stop is a section .* got 'auto': set --stop.NAME; did you mean 'auto'",
        ),
        (["--model", "embedded"], r"model is a section .* got 'embedded': .*there is: .*path"),
    ],
)
def test_a_word_in_the_place_of_a_section_is_told_the_names_of_its_options(args, text):
    with pytest.raises(ConfigError, match=text):
        read_config(["configs/tiny/grpo.yaml", *args])
