"""Reward models from the command line: train, eval, best-of-N, export with normalisation."""

import gzip
import json

import numpy as np
import pytest

from jalign.cli.evaluate import evaluations_of
from jalign.log import Display
from jalign.rewards.model import REWARD_FILE, RewardModel
from jalign.run import data as build_data
from jalign.run import folder as runs
from tests._cli import CHEAP, call
from tests.tiny_run import arguments, write_model, write_pairs


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A language model; a reward model and a policy of two steps on two sources of pairs."""
    folder = tmp_path_factory.mktemp("cli_reward")
    write_model(folder / "model")
    write_pairs(folder / "pairs.jsonl.gz")
    with gzip.open(folder / "pairs.jsonl.gz", "rt") as file:
        pairs = [json.loads(line) for line in file]
    swapped = [p | {"chosen": p["rejected"], "rejected": p["chosen"]} for p in pairs[:16]]
    (folder / "swapped.jsonl").write_text("".join(json.dumps(p) + "\n" for p in swapped))
    both = json.dumps({str(folder / "pairs.jsonl.gz"): 1, str(folder / "swapped.jsonl"): 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        for out, algorithm in (("reward", "bradley_terry"), ("policy", "dpo")):
            options = CHEAP | {"algorithm": algorithm, "steps": 2, "data.train": both}
            code, _ = call(["train", *arguments(folder, out, **options | {"data.holdout": 12})])
            assert code == 0
    return folder


def quietly(*args):
    (evaluation,) = evaluations_of([str(a) for a in args], Display())
    return evaluation.metrics


def test_eval_of_a_reward_model_reports_accuracy_calibration_length_and_sources(folder, capsys):
    code, said = call(["eval", folder / "reward"], capsys)
    assert code == 0
    for words in ("pairwise accuracy", "calibration", "Spearman", "0.50-0.55", "swapped.jsonl"):
        assert words in said.out, words
    assert "kl_to_start" not in said.out  # it is no language model any more
    found = quietly(folder / "reward")
    assert found["pairwise_accuracy"] == pytest.approx(found["rewards/accuracies"])
    held = sum(bucket["pairs"] for bucket in found["calibration"])
    by_source = found["accuracy_by_source"]
    assert held == sum(s["pairs"] for s in by_source.values()) >= 12 and len(by_source) == 2
    mean = sum(s["pairs"] * s["accuracy"] for s in by_source.values()) / held
    assert found["pairwise_accuracy"] == pytest.approx(mean)


def test_eval_of_a_policy_adds_its_kl_to_the_start(folder):
    trained = quietly(folder / "policy")
    assert trained["kl_to_start"] > 1e-4 and trained["calibration_error"] > 0
    options = CHEAP | {"algorithm": "dpo", "data.holdout": 8}
    untrained = quietly(*arguments(folder, "none", **options))
    assert abs(untrained["kl_to_start"]) < 1e-6
    assert untrained["pairwise_accuracy"] == 0.5  # all implicit rewards are zero


def test_runs_are_evaluated_side_by_side_with_their_start_and_nothing_is_written(
    folder, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "900")  # four columns that are named by a path

    def files(run):
        return {p: p.stat().st_mtime_ns for p in (folder / run).rglob("*")}

    kept = files("policy"), files("reward")
    code, said = call(["eval", folder / "policy", folder / "reward"], capsys)
    assert code == 0 and f"{folder / 'reward'} before" in said.out
    assert (files("policy"), files("reward")) == kept
    code, said = call(["eval", folder / "policy", "--json"], capsys)
    (one,) = json.loads(said.out).values()
    assert one["step"] == 2 and one["before"]["rewards/accuracies"] == 0.5
    assert one["metrics"]["loss"] < one["before"]["loss"] and one["examples"] >= 12


def test_a_run_is_evaluated_on_other_data_but_as_no_other_algorithm(folder, capsys):
    other = folder / "swapped.jsonl"
    code, said = call(["eval", folder / "policy", "--data.eval", other, "--json"], capsys)
    (one,) = json.loads(said.out).values()
    assert code == 0 and one["examples"] == 16 and one["before"] is None
    code, said = call(["eval", folder / "policy", "--optim.name", "sgd"], capsys)
    assert code == 3 and "leave out --optim.name" in said.err and "--data.*" in said.err


def test_an_exported_model_is_compared_with_what_it_comes_from(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(["export", folder / "policy", out, "--dtype", "float32"], capsys)[0] == 0
    of_run = quietly(folder / "policy")
    args = arguments(folder, "none", **CHEAP | {"algorithm": "dpo", "data.holdout": 12})
    both = json.dumps({str(folder / n): 1 for n in ("pairs.jsonl.gz", "swapped.jsonl")})
    args += ["--model.path", str(out), "--data.train", both]
    code, said = call(["eval", *args, "--json"], capsys)
    assert code == 0 and f"reference: {folder / 'model'}, which {out} comes from" in said.err
    metrics = json.loads(said.out)[str(out)]["metrics"]
    assert metrics["loss"] == pytest.approx(of_run["loss"], rel=1e-4)
    assert metrics["kl_to_reference"] == pytest.approx(of_run["kl_to_start"], rel=1e-3)
    (out / "jalign.json").unlink()
    code, said = call(["eval", *args], capsys)
    assert code == 0 and "is its own reference" in said.out and "--model.reference BASE" in said.out


def test_the_help_of_eval_names_runs_and_steps(capsys):
    code, said = call(["eval", "--help"], capsys)
    assert code == 0
    for words in ("RUN [RUN ...]", "--step", "--json", "--data.eval"):
        assert words in said.out, words


def test_eval_of_data_without_pairs_has_a_kl_and_no_rewards(folder):
    options = CHEAP | {"algorithm": "kto", "data.holdout": 8}
    found = quietly(*arguments(folder, "none", **options))
    assert abs(found["kl_to_start"]) < 1e-6 and "calibration" not in found


def test_eval_knows_a_reference_that_moves(folder):
    options = CHEAP | {"algorithm": "tr_dpo", "data.holdout": 8}
    found = quietly(*arguments(folder, "none", **options))
    assert found["rewards/margins"] == pytest.approx(0)
    assert found["kl_to_start"] == pytest.approx(0, abs=1e-6)


def test_best_of_n_keeps_what_the_reward_model_likes_best(folder, capsys, tmp_path):
    out = tmp_path / "rows.jsonl"
    sampled = ["--max_new_tokens", 4, "--temperature", 1.5]
    args = ["sample", folder / "model", "hello", "the fox", *sampled]
    code, said = call([*args, "--best-of", 5, "--reward", folder / "reward", "--out", out], capsys)
    assert code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["prompt"] for r in rows] == ["hello", "the fox"]
    model = runs.reward_model(str(folder / "reward"))
    for row in rows:
        rewards = model([row["prompt"]] * len(row["responses"]), row["responses"])
        np.testing.assert_allclose(row["rewards"], rewards, rtol=1e-4, atol=1e-5)
        assert row["reward"] == row["rewards"][0] == max(row["rewards"])
    assert f"{sum(len(r['responses']) for r in rows)} continuations written" in said.out
    # the rows are data: the best of each is what sft trains on
    config = CHEAP | {"algorithm": "sft", "data.train": out, "data.holdout": 0, "batch_size": 2}
    code, said = call(["data", *arguments(folder, **config)], capsys)
    assert code == 0 and "made into supervised" in said.out
    code, said = call([*args, "--best_of", 2, "--reward", folder / "reward"], capsys)
    assert code == 0 and said.out.count("\nreward ") == 2


REWARD = ("--reward", "reward")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--best_of", 2, "--temperature", 1), "--reward is missing"),
        ((*REWARD, "--temperature", 1), "--best_of is missing"),
        ((*REWARD, "--best_of", 2), "--best_of needs a --temperature above 0"),
        ((*REWARD, "--best_of", 0, "--temperature", 1), "--best_of must be at least 1, got 0"),
        ((*REWARD, "--best_of", 2, "--responses", 2, "--temperature", 1), "leave out --responses"),
        (
            ("--reward", "policy", "--best_of", 2, "--temperature", 1),
            "policy is no reward model: dpo trains no reward of a whole response; these do: brad",
        ),
        (
            ("--reward", "model", "--best_of", 2, "--temperature", 1),
            "model is no reward model: its weights have no score.weight",
        ),
    ],
)
def test_best_of_n_says_what_is_wrong_before_it_samples(folder, options, message, capsys):
    options = [folder / x if x in ("reward", "policy", "model") else x for x in options]
    code, said = call(["sample", folder / "model", "hello", *options], capsys)
    assert code == 3 and message in said.err


def test_a_normalised_export_has_mean_0_and_spread_1_on_held_out_responses(
    folder, capsys, tmp_path
):
    run, out = folder / "reward", tmp_path / "normal"
    code, said = call(["export", run, out, "--normalize_reward", "true"], capsys)
    assert code == 0 and "reward = " in said.out
    config, model, state, _ = runs.newest(str(run))
    _, held = build_data.examples_of(config, model.tokenizer)
    raw = runs.reward_of(config, model, state.params).of_examples(held)
    rewards = RewardModel.load(out).of_examples(held)
    assert abs(raw.std() - 1) > 1e-3
    np.testing.assert_allclose([rewards.mean(), rewards.std()], [0, 1], atol=1e-4)
    said = json.loads((out / REWARD_FILE).read_text())
    np.testing.assert_allclose(rewards, said["gain"] * raw + said["bias"], rtol=1e-3, atol=1e-4)
    assert said["max_response_len"] == 512
    call(["export", run, out, "--overwrite"], capsys)  # nothing of the bias is left
    np.testing.assert_allclose(RewardModel.load(out).of_examples(held), raw, rtol=1e-4, atol=1e-5)
    assert json.loads((out / REWARD_FILE).read_text())["bias"] == 0


def test_only_reward_models_are_normalised(folder, capsys, tmp_path):
    args = ["--normalize_reward"]
    code, said = call(["export", folder / "policy", tmp_path / "a", *args], capsys)
    assert code == 3 and "policy is no reward model" in said.err
    code, said = call(["export", folder / "reward", tmp_path / "b", *args, "--adapter"], capsys)
    assert code == 3 and "--adapter leaves out" in said.err
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
