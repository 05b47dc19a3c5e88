"""Whole online runs: sample, judge, learn, stop and go on. 8 devices (2 x 2 x 2) unless said."""

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from jalign import algorithms
from jalign.cli.rollouts import rollouts
from jalign.config import (
    Config,
    DataConfig,
    JudgeConfig,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
)
from jalign.config.build import options_of
from jalign.config.read import read_config
from jalign.data.examples import Example, Examples, Report
from jalign.eval.evaluate import evaluate
from jalign.rollout import record
from jalign.rollout.types import Rollout
from jalign.run.prompts import PromptTable
from jalign.run.response_rewards import bradley_terry
from jalign.run.reward_total import total_of
from jalign.run.rollouts import trained_temperature
from jalign.train.experience_fields import rollout_weights
from jalign.train.preemption import ExitCode
from tests._runs import ONLINE, leaves, rows, run
from tests._train import train
from tests.tiny_run import arguments
from tests.train._damage import flip_a_bit


def test_a_run_cut_in_the_middle_of_a_rollout_ends_where_the_whole_one_does(folder, caplog):
    """The rollout under way, the adaptive KL coefficient and the metrics not yet logged go on; the
    newest checkpoint's rollout is damaged, so it is the one before that they go on from.
    """
    adaptive = ONLINE | {"rollout.kl_target": 1.0, "rollout.kl_horizon": 50}
    assert run(folder, "whole", "ppo", **adaptive, log_every=3, steps=6) == ExitCode.OK
    assert run(folder, "cut", "ppo", **adaptive, log_every=3, steps=2) == ExitCode.OK
    (left,) = (folder / "cut" / "rollouts").glob("under-way-2.npz")
    flip_a_bit(left)
    assert run(folder, "cut", "ppo", **adaptive, log_every=3, steps=6) == ExitCode.OK
    assert "CHECKPOINT 2 IS DAMAGED" in caplog.text and left.name in caplog.text
    assert (folder / "cut" / "checkpoints" / "2.aside").is_dir()
    assert leaves(folder, "cut", 6) == leaves(folder, "whole", 6)
    whole, cut = rows(folder, "whole"), rows(folder, "cut")
    assert [r["step"] for r in whole] == [3, 6]
    for name in ("loss", "reward", "objective/kl_coef", "num_tokens", "objective/kl"):
        assert whole[-1][name] == cut[-1][name], name
    coefficients = {r["objective/kl_coef"] for r in whole}
    assert coefficients and 0.05 not in coefficients  # it was steered


def test_a_run_that_draws_random_numbers_of_its_own_goes_on_with_them(folder):
    """Statistical rejection sampling, cut between two rollouts and in the middle of one."""
    given = ONLINE | {"rollout.responses": 4, "log_every": 1}
    assert run(folder, "rso", "rso_online", **given, steps=6) == ExitCode.OK
    for steps in (3, 4, 6):
        assert run(folder, "rso-cut", "rso_online", **given, steps=steps) == ExitCode.OK
    assert leaves(folder, "rso-cut", 6) == leaves(folder, "rso", 6)


def test_a_run_with_two_moving_references_cut_in_an_iteration_goes_on_with_both(folder):
    """After three of four steps policy, reference and the one before it are three models."""
    given = ONLINE | {"rollout.responses": 4, "algorithm.ref_sync_steps": 2, "algorithm.eta": 2.0}
    given |= {"rollout.epochs": 1, "steps": 4}
    assert run(folder, "omwu", "omwu", **given) == ExitCode.OK
    for steps in (3, 4):
        assert run(folder, "omwu-cut", "omwu", **given | {"steps": steps}) == ExitCode.OK
    assert leaves(folder, "omwu-cut", 4) == leaves(folder, "omwu", 4)
    cut = leaves(folder, "omwu-cut", 3)
    models = [{n: x for n, x in cut.items() if of in n} for of in ("params", "ref", "last")]
    assert len(models[0]) == len(models[1]) == len(models[2]) > 0
    checksums = [[str(x) for x in model.values()] for model in models]
    assert checksums[0] != checksums[1] != checksums[2] != checksums[0]


def test_the_trainer_gives_sampled_tokens_the_log_probs_they_were_sampled_with(folder):
    """Also at another temperature than 1 (trl 3029, 4159)."""
    run(folder, "warm", "grpo", **ONLINE | {"rollout.temperature": 0.7})
    for row in rows(folder, "warm"):
        assert row.get("sampling/logp_difference_max", 0) < 1e-4
    assert any("sampling/logp_difference_max" in row for row in rows(folder, "warm"))


def test_on_policy_the_ratio_is_one_and_in_later_epochs_it_is_not(folder):
    run(folder, "ratio", "grpo", **ONLINE | {"rollout.prompts": 8, "rollout.epochs": 2})
    first, second, *_ = [row["approx_kl"] for row in rows(folder, "ratio")]
    assert first < 1e-6 < second


def test_a_batch_invariant_policy_is_scored_as_it_was_sampled(folder):
    """The KL divergence between sampler and trainer is 0, and the first step's ratio is 1."""
    options = ONLINE | {"rollout.prompts": 8, "mesh.fsdp": 4, "mesh.tensor": 1}
    run(folder, "exact", "grpo", **options, **{"rollout.batch_invariant": True}, steps=2)
    sampled = [row for row in rows(folder, "exact") if "sampling/logp_difference_max" in row]
    assert sampled and all(row["sampling/logp_difference_max"] == 0 for row in sampled)
    first, second = [row["approx_kl"] for row in rows(folder, "exact")]
    assert first == 0 < second


def test_another_mesh_and_gathered_weights_learn_from_the_same_responses(folder):
    other = {"mesh.data": 1, "mesh.fsdp": 4, "mesh.tensor": 2, "rollout.weights": "gathered"}
    run(folder, "a", "rloo", **ONLINE, steps=2)
    run(folder, "b", "rloo", **ONLINE | other, steps=2)
    for a, b in zip(rows(folder, "a"), rows(folder, "b"), strict=True):
        assert a.get("reward") == b.get("reward")
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-3, atol=1e-5)


@pytest.fixture(scope="module")
def recorded(folder):
    """The folder of a run whose rows are refilled and whose rollouts are recorded."""
    run(folder, "eval", "grpo", **ONLINE, **{"rollout.record": True, "rollout.rows": 5})
    return folder


def test_held_out_prompts_are_answered_before_and_after(recorded):
    folder = recorded
    before, after = rows(folder, "eval", "eval")
    assert (before["step"], after["step"]) == (0, 4)
    assert before["objective/kl"] == pytest.approx(0, abs=1e-5) and after["objective/kl"] != 0
    assert {"reward", "completions/mean_length"} <= set(before)
    again = evaluate(str(folder / "eval")).metrics  # of the newest checkpoint
    assert again["reward"] == pytest.approx(after["reward"])
    assert again["objective/kl"] == pytest.approx(after["objective/kl"], rel=1e-3)


def test_recorded_rollouts_can_be_looked_at(recorded, capsys):
    """One rollout of 16 prompts x 2 responses."""
    folder = recorded
    found = record.read(folder / "eval" / "rollouts", last=2)
    assert len(found) == 32 and {row["rollout"] for row in found} == {0}
    for row in found:
        assert len(row["tokens"]) == len(row["token_logps"]) <= 6
        assert row["score"] == len(row["response"].split())
    rollouts([str(folder / "eval"), "--limit", "3"], Console(width=200))
    shown = capsys.readouterr().out
    assert "32 responses, mean reward" in shown
    with pytest.raises(ValueError, match=r"has no rollouts; `rollout\.record: true` writes them"):
        rollouts([str(folder / "nothing")], Console())


def test_a_response_without_a_reward_is_counted_and_not_learnt_from(folder):
    (folder / "half.py").write_text(
        "def half(prompts, responses):\n"
        "    return [None if i % 2 else float(len(r)) for i, r in enumerate(responses)]\n"
    )
    given = {"reward.functions": json.dumps({f"{folder}/half.py:half": 1.0})}
    assert run(folder, "half", "reinforce", **ONLINE | given | {"steps": 2}) == ExitCode.OK
    row = rows(folder, "half")[0]
    assert row["rewards/half/absent"] == row["rewards/missing"] == 16 and np.isfinite(row["loss"])
    assert row["rewards/half/failed"] == 0 and row["grad_norm"] > 0


def test_every_step_has_a_reward_of_its_own(folder):
    (folder / "so_far.py").write_text(
        "def so_far(prompts, responses, before):\n"
        "    return [None if '!' in r else len(b) for r, b in zip(responses, before)]\n"
    )
    given = {"reward.functions": json.dumps({f"{folder}/so_far.py:so_far": 0.5})}
    given |= {"reward.step_separator": "e", "rollout.record": True, "rollout.max_new_tokens": 12}
    assert run(folder, "steps", "grpo_process", **ONLINE | given) == ExitCode.OK
    found = record.read(folder / "steps" / "rollouts")
    judged = [row for row in found if row["valid"]]
    assert max(len(row["step_scores"]) for row in judged) > 1 and len(judged) > 16
    for row in judged:
        x = row["step_scores"]
        assert x[0] == 0 and x == sorted(x) and row["score"] == pytest.approx(np.mean(x))
    (before, after) = rows(folder, "steps", "eval")
    assert before["completions/mean_steps"] >= 1 and "reward" in after


def test_a_process_reward_model_judges_steps(folder):
    stories = [
        {
            "prompt": f"hello {i}",
            "completions": ["the fox", f"you {i}"],
            "labels": [i % 2 == 0, True],
        }
        for i in range(24)
    ]
    (folder / "steps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stories))
    data = {"data.train": str(folder / "steps.jsonl"), "steps": 1}
    assert run(folder, "prm", "prm", **data) == ExitCode.OK
    given = {"reward.functions": "{}", "reward.model": str(folder / "prm"), "steps": 2}
    given |= {"reward.step_separator": "e"}
    assert run(folder, "by-prm", "grpo_process", **ONLINE | given) == ExitCode.OK
    row = rows(folder, "by-prm")[0]
    assert np.isfinite(row["loss"]) and 0 < row["reward"] < 1 and row["reward_std"] > 0
    again = evaluate(str(folder / "by-prm")).metrics
    assert again["reward"] == pytest.approx(rows(folder, "by-prm", "eval")[-1]["reward"])
    with pytest.raises(ValueError, match="prm is no reward model: prm trains no reward of a whole"):
        run(folder, "none", "grpo", **ONLINE | given | {"reward.step_separator": "\n"})
    given["reward.model"] = str(folder / "by-prm")
    with pytest.raises(ValueError, match="grpo_process trains no reward of steps; this does: prm"):
        run(folder, "none", "grpo_process", **ONLINE | given)


@pytest.mark.parametrize("ask", ["score", "preference"])
def test_a_model_in_process_judges(folder, ask):
    given = {"reward.judge.ask": ask, "reward.judge.model": str(folder / "model")}
    given |= {"reward.functions": "{}", "steps": 1}
    assert run(folder, ask, "spo", **ONLINE | given) == ExitCode.OK
    (row,) = rows(folder, ask)
    assert np.isfinite(row["loss"])
    if ask == "score":
        assert -1 < row["reward"] < 1 and row["rewards/judge/failed"] == 0
    else:
        assert "reward" not in row and row["preference/judge/failed"] == 0


def config(**more):
    return Config(algorithm={"name": "grpo"}, steps=2, **more)


def test_what_an_online_run_needs_and_what_does_not_apply_is_said():
    with pytest.raises(ValueError, match=r"grpo learns from rewards: set reward\.functions"):
        config()
    reward = RewardConfig(functions={"sentiment_reward": 1.0})
    with pytest.raises(ValueError, match=r"rollout\.prompts \(10\) must be a multiple of batch"):
        config(reward=reward, rollout=RolloutConfig(prompts=10), batch_size=4)
    with pytest.raises(ValueError, match=r"data\.filters does not apply to grpo"):
        config(reward=reward, data=DataConfig(filters=["length_ratio=3"]))
    with pytest.raises(ValueError, match=r"rollout\.kl_target does not apply to grpo"):
        config(reward=reward, rollout=RolloutConfig(kl_target=6.0))
    with pytest.raises(ValueError, match=r"judge\.ask must be set"):
        JudgeConfig(model="judge")
    with pytest.raises(ValueError, match="preference does not apply: grpo reads no preferences"):
        config(reward=replace(reward, judge=JudgeConfig(ask="preference", model="judge")))
    with pytest.raises(ValueError, match=r"ask is preference, which gives no .* score or points"):
        judged = RewardConfig(judge=JudgeConfig(ask="preference", model="judge"))
        Config(algorithm={"name": "online_dpo"}, steps=2, reward=judged)
    with pytest.raises(ValueError, match=r"data\.layout does not apply to grpo"):
        config(reward=reward, data=DataConfig(layout="padded"))
    with pytest.raises(ValueError, match="cached does not apply to grpo: its responses are"):
        config(reward=reward, reference="cached")
    with pytest.raises(ValueError, match="reward does not apply to dpo: its data are fixed"):
        Config(algorithm={"name": "dpo"}, reward=reward)
    with pytest.raises(ValueError, match=r"responses is 2: gkd_on_policy learns from 1 per prompt"):
        given = {"rollout": RolloutConfig(responses=2), "model": ModelConfig(reference="teacher")}
        Config(algorithm={"name": "gkd_on_policy"}, steps=1, **given)
    with pytest.raises(ValueError, match="grpo samples its own data: set steps"):
        Config(algorithm={"name": "grpo"}, reward=reward)
    with pytest.raises(ValueError, match=r"step_separator does not apply: grpo reads no rewards"):
        config(reward=replace(reward, step_separator="."))
    with pytest.raises(ValueError, match=r"grpo_process learns from rewards of steps: set reward"):
        Config(algorithm={"name": "grpo_process"}, steps=2)
    for more in ({"judge": JudgeConfig(ask="score", model="judge")}, {"missing_eos_penalty": 1.0}):
        with pytest.raises(ValueError, match=r"does not apply: grpo_process learns from rewards"):
            Config(algorithm={"name": "grpo_process"}, steps=2, reward=replace(reward, **more))
    with pytest.raises(ValueError, match=r"step_separator must not be empty"):
        RewardConfig(step_separator="")
    with pytest.raises(ValueError, match=r"beta must be > 0, got 0.0"):
        Config(algorithm={"name": "rso_online", "rejection_beta": 0.0}, steps=2, reward=reward)
    with pytest.raises(ValueError, match=r"accept must be from 1 to the 1 responses, got 2"):
        one = RolloutConfig(responses=1)
        Config(algorithm={"name": "rso_online"}, steps=2, reward=reward, rollout=one)
    with pytest.raises(ValueError, match="options are for functions that are not used"):
        RewardConfig(functions={"sentiment_reward": 1.0}, options={"repetition": {"n": 3}})
    with pytest.raises(ValueError, match=r"rollout\.temperature must be > 0"):
        RolloutConfig(temperature=0.0)


COMPARING = {
    "reinforce_pp_baseline", "rloo", "rloo_token", "grpo", "dr_grpo", "dapo", "gspo", "gspo_token",
    "cispo", "online_dpo", "online_ipo", "online_slic", "xpo", "iterative_dpo", "rso_online",
    "iterative_cringe", "sppo_samples", "spo", "dno_prct", "mpo", "inpo",
    "comal", "sapo", "gmpo", "vespo", "dppo_tv", "dppo_kl", "clip_cov", "kl_cov", "gdpo", "opo",
    "pass_at_k", "lite_ppo", "otb", "dar", "rebel", "pmd", "maxrl",
}  # fmt: skip


@pytest.mark.parametrize("row", [r for r in algorithms.ROWS if r.experience], ids=lambda r: r.name)
def test_methods_that_compare_responses_to_a_prompt_need_two(row):
    models = ModelConfig(reference="teacher") if row.needs_teacher else ModelConfig()
    given = {"reward": RewardConfig(functions={"sentiment_reward": 1.0}), "model": models}
    if row.name == "ppo_ptx":
        given["data"] = DataConfig(pretraining="texts.jsonl")
    if row.experience.opponent != "policy" and row.name not in COMPARING:
        return
    make = partial(Config, algorithm={"name": row.name}, steps=1, **given)
    if row.name not in COMPARING:
        assert make(rollout=RolloutConfig(responses=1)).rollout.responses == 1
        return
    with pytest.raises(ValueError, match=r"responses (is|must be .*got) 1|from 1 to the 1 resp"):
        make(rollout=RolloutConfig(responses=1))
    assert make(rollout=RolloutConfig(responses=2))


FAILING = """
def tied(prompts, responses):
    return [1.0] * len(responses)

calls = []

def no_baseline(prompts, responses):
    calls.append(len(responses))
    greedy = len(calls) % 2 == 0  # the likeliest responses are judged after the sampled ones
    return [None if greedy and i < 4 else len(r.split()) for i, r in enumerate(responses)]
"""


def test_a_run_whose_reward_fails_from_the_start_ends_before_its_first_step(folder, capsys):
    (folder / "wrong.py").write_text("def wrong(prompts, responses):\n    return undefined\n")
    given = {"reward.functions": json.dumps({f"{folder}/wrong.py:wrong": 1.0})}
    console = Console(width=200, force_terminal=False)
    config = read_config(arguments(folder, "wrong", "grpo", **ONLINE | given | {"data.holdout": 0}))
    assert train(config, console) == ExitCode.NOTHING_LEARNED
    said = capsys.readouterr().out
    assert "reward wrong failed for all 32 responses: NameError" in said
    assert "wrong.py" in said and "line 2, in wrong" in said  # where it was raised
    assert not (folder / "wrong" / "checkpoints").exists() or not rows(folder, "wrong")
    (folder / "wrong.py").write_text("def wrong(prompts, responses):\n    return range(32)\n")
    config = replace(config, steps=1)
    assert train(config, None) == ExitCode.OK  # mended, the same folder is good for it


def of_file(folder, name):
    (folder / "failing.py").write_text(FAILING)
    return {"reward.functions": json.dumps({f"{folder}/failing.py:{name}": 1.0})}


def test_a_rollout_that_keeps_no_prompt_changes_nothing_and_the_run_goes_on(folder):
    """DAPO where every group has one reward, as right or wrong answers often have."""
    given = ONLINE | of_file(folder, "tied") | {"rollout.attempts": 2, "rollout.record": True}
    assert run(folder, "tied", "dapo", **given, steps=3) == ExitCode.OK
    assert [row["skipped"] for row in rows(folder, "tied")] == [0, 0, 0]
    assert rows(folder, "tied")[0]["rollout/kept"] == 0
    same = [
        {name: leaf for name, leaf in leaves(folder, "tied", step).items() if "params" in name}
        for step in (2, 3)
    ]
    assert same[0] and same[0] == same[1]
    attempts = record.read(folder / "tied" / "rollouts", last=1)
    assert {row["attempt"] for row in attempts} == {0, 1}
    assert len({row["rollout"] for row in attempts}) == 1


def test_a_prompt_without_a_baseline_is_left_out_and_counted(folder):
    given = ONLINE | of_file(folder, "no_baseline") | {"rollout.responses": 1, "data.holdout": 0}
    assert run(folder, "remax", "remax", **given, steps=2) == ExitCode.OK
    row = rows(folder, "remax")[0]
    assert row["rewards/greedy_failed"] == 4 and row["skipped"] == 0


def test_a_loss_of_whole_responses_weighs_them_by_all_their_tokens():
    arrays = {
        "old_token_logps": np.log(np.array([[[0.5, 0.5, 0.5]]], np.float32)),
        "sampler_token_logps": np.log(np.array([[[0.5, 0.4, 0.25]]], np.float32)),
        "mask": np.array([[[True, True, False]]]),
    }

    def weights(name, cap):
        return rollout_weights(arrays, cap, per_token=algorithms.get(name).loss_per_token)

    np.testing.assert_allclose(weights("rloo", 3.0), [[[1.25]]], rtol=1e-6)
    np.testing.assert_allclose(weights("rloo", 1.1), [[[1.1]]], rtol=1e-6)
    np.testing.assert_allclose(weights("grpo", 3.0)[0, 0, :2], [1, 1.25], rtol=1e-6)


@pytest.mark.parametrize(
    "name, expected", [("grpo", 0.7), ("nash_md", 0.7), ("online_dpo", 1), ("sppo_samples", 1)]
)
def test_direct_methods_learn_at_temperature_one(name, expected):
    config = Config(
        algorithm={"name": name},
        data=DataConfig(train="x"),
        model=ModelConfig(path="x"),
        rollout=RolloutConfig(temperature=0.7),
        reward=RewardConfig(functions={"sentiment_reward": 1.0}),
        steps=1,
        out="x",
    )
    assert trained_temperature(options_of(config)) == expected


def test_who_would_win_is_not_known_where_a_reward_is_missing():
    won = bradley_terry(np.array([[1.0, np.nan, -1.0]]), 1.0)[0]
    assert won[0, 2] == pytest.approx(1 / (1 + np.exp(-2))) and won[0, 0] == 0.5
    assert np.isnan(won[1]).all() and np.isnan(won[:, 1]).all()


def test_a_clip_makes_no_reward_of_one_that_is_missing():
    c = RewardConfig(model="m", clip=5.0, functions={})
    total, metrics = total_of(c, 3, None, np.array([-np.inf, 1.0, -9.0]))
    np.testing.assert_array_equal(total, [np.nan, 1, -5])
    assert metrics["rewards/model/failed"] == 1


def prompts_of_rows(count: int) -> Examples:
    """Prompts of one token, each of its own row."""
    examples = [Example(np.array([7]), (), (), {"row": np.int32(i)}) for i in range(count)]
    return Examples.from_list(examples, Report(read=count, kept=count))


def test_a_chat_reaches_reward_models_as_messages_and_functions_as_what_was_said():
    chat = [{"role": "user", "content": "hello"}]
    rows = [{"prompt": chat, "answer": 1}, {"prompt": "plain", "level": 2}]
    examples = prompts_of_rows(2)
    tokenizer: Any = SimpleNamespace(decode=lambda ids, skip_special_tokens: "as read")
    table = PromptTable(examples, rows, tokenizer)
    assert table[0].messages == chat and table[0].text == "hello"
    assert table[1].messages == table[1].text == "as read"
    pair = {"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"}
    for kind in ("prompts", "supervised"):  # rows of any layout
        assert PromptTable(examples, [pair, pair], tokenizer, kind)[0].text in ("as read", "hi")
    assert table.columns([1])["answer"] == [None] and table.columns([0])["level"] == [None]
    assert table.columns([0])["policy_prompt"] == ["as read"]


def test_a_column_that_is_called_like_one_of_jaligns_own_is_said_to_be_hidden(caplog):
    examples = prompts_of_rows(1)
    rows = [{"prompt": "p", "response_tokens": "mine", "policy_prompt": "mine"}]
    tokenizer: Any = SimpleNamespace(decode=lambda ids, skip_special_tokens: "p")
    table = PromptTable(examples, rows, tokenizer)
    for _ in range(2):
        found = table.columns([0], {"response_tokens": [3]})
        assert found["response_tokens"] == [3] and found["policy_prompt"] == ["mine"]
    assert caplog.text.count("reward functions do not see the data's response_tokens") == 1


def test_the_viewer_shows_the_best_first_and_what_has_no_reward_last(tmp_path, capsys):
    texts, scores = ["low", "missing", "high", "mid"], [1.0, np.nan, 3.0, 2.0]
    rollout = Rollout.from_lists([np.array([9])], [[[0]] * 4])
    arrays = {"scores": np.array([scores])}
    record.write(tmp_path / record.FOLDER, 0, 0, ["ask"], [texts], rollout, arrays)
    for more, order in (
        ([], "high mid low missing"),
        (["--worst", "true"], "low mid high missing"),
    ):
        rollouts([str(tmp_path), *more], Console(width=200))
        shown = capsys.readouterr().out
        assert sorted(texts, key=shown.index) == order.split()
