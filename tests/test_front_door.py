"""The library's front door: runs from Python are the runs of the command, bit for bit."""

import json

import jax
import numpy as np
import optax
import pytest

import jalign
from jalign.config.read import read_config
from jalign.options import OptimConfig, SampleConfig
from jalign.report.record import load as read_record
from jalign.run.batches import source_of
from jalign.run.roles import initial_state
from jalign.train.exit_code import ExitCode
from tests._train import train

PROMPTS = [
    "Once upon a time there was a",
    "Tom had a red ball.",
    "The cat",
    "Lily went to the park",
]
TOPICS = ["ball", "cat", "dog", "park"]
UNTIMED = ("time", "tokens_per_second", "step_time", "eta_s")


def length(prompts, responses):
    """Rewards responses of eight words."""
    return [-abs(len(text.split()) - 8) / 8 for text in responses]


pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def policy(quick):
    return jalign.load("embedded", lora=4)


def untimed(rows):
    return [{n: x for n, x in row.items() if n not in UNTIMED} for row in rows]


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_grpo_in_seven_lines_samples_learns_and_is_saved(policy, tmp_path):
    run = jalign.online(
        "grpo", policy, prompts=PROMPTS, rewards={"length": length}, eval=PROMPTS[:2],
        responses=3, max_new_tokens=8, kl_k3_coef=0.04, batch_size=2,
    )  # fmt: skip
    out = tmp_path / "grpo"
    code = run.fit(
        steps=2, optimizer=optax.adamw(1e-4), out=str(out), eval_every=1, log_every=1, console=None
    )
    assert code == ExitCode.OK
    assert [row["step"] for row in run.evaluations] == [0, 1, 2]
    rewards = [row["rewards/length/mean"] for row in run.record if row["kind"] == "train"]
    assert len(rewards) == 2 and all(-8 < x <= 0 for x in rewards)
    (text,) = run.policy.generate(["Once upon a time"], max_new_tokens=4)
    assert isinstance(text, str)
    run.policy.save(tmp_path / "exported")
    again = jalign.load(str(tmp_path / "exported"))
    assert again.generate(["Once upon a time"], max_new_tokens=4) == [text]
    opened = jalign.open(str(out))
    assert opened.policy.generate(["Once upon a time"], max_new_tokens=4) == [text]
    assert opened.evaluations == run.evaluations
    (session,) = read_record(str(out)).happened("session")
    assert session["from_python"] == ["policy", "train", "eval", "optimizer", "rewards"]


def test_a_run_from_python_is_the_run_of_the_command_bit_for_bit(tmp_path):
    file = tmp_path / "reward.py"
    file.write_text(
        "def length(prompts, responses):\n"
        "    return [-abs(len(text.split()) - 8) / 8 for text in responses]\n"
    )
    reward = f"{file}:length"
    short = {"steps": 2, "log_every": 1, "eval_every": 1, "out": tmp_path / "command"}
    words = [word for name, x in short.items() for word in (f"--{name}", str(x))]
    rewards = ["--reward.functions", json.dumps({reward: 1.0})]
    options = read_config(["tiny/grpo", *words, *rewards])
    assert train(options, None) == ExitCode.OK
    run = jalign.online(
        "grpo",
        jalign.load("embedded"),
        "embedded",
        {reward: 1.0},
        rollout=options.rollout,
        data=options.data,
        hyper=options.algorithm.hyper,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    code = run.fit(
        2, options.optim, str(tmp_path / "python"), eval_every=1, log_every=1, console=None
    )
    assert code == ExitCode.OK
    command, python = (untimed(rows_of(tmp_path / name)) for name in ("command", "python"))
    assert command == python and len(command) == 5
    # and each resumes the other
    options = read_config([str(tmp_path / "python" / "config.json"), "--steps", "3"])
    assert options.to_json()["algorithm"]["name"] == "grpo"


def test_dpo_resumes_where_it_stopped(policy, tmp_path):
    def run(steps, name):
        dpo = jalign.offline(
            "dpo", policy, "embedded", beta=0.2, limit=64, eval_limit=16, batch_size=8,
            max_prompt_len=32, max_response_len=32,
        )  # fmt: skip
        optimizer = OptimConfig(learning_rate=1e-3, schedule="constant")
        assert dpo.fit(steps, optimizer, str(tmp_path / name), console=None, log_every=1) == 0
        return dpo

    whole = run(4, "whole")
    run(2, "halves")
    halves = run(4, "halves")
    losses = [[r["loss"] for r in x.record if r["kind"] == "train"] for x in (whole, halves)]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert whole.evaluate()["loss"] == pytest.approx(whole.evaluations[-1]["loss"], rel=1e-6)


def test_a_resumed_run_frees_the_moments_of_step_0_and_leaves_the_weights(
    policy, tmp_path, monkeypatch
):
    fresh = []

    def keep(*args, **options):
        fresh.append(initial_state(*args, **options))
        return fresh[-1]

    monkeypatch.setattr("jalign.run.session.initial_state", keep)
    optimizer = OptimConfig(learning_rate=1e-3, schedule="constant")
    for steps in (1, 2):
        rows = [{"text": text} for text in ("Once upon a time.", "A dog ran home.")]
        run = jalign.offline("sft", policy, rows, batch_size=1)
        assert run.fit(steps, optimizer, str(tmp_path / "run"), console=None) == ExitCode.OK
    state, _ = fresh[-1]
    assert all(x.is_deleted() for x in jax.tree.leaves(state.opt_state))
    assert not any(x.is_deleted() for x in jax.tree.leaves((state.params, policy.weights[1])))


def test_a_reward_model_scores_and_rewards_an_online_run(policy):
    rm = jalign.reward_model(
        "bradley_terry", policy, "embedded", limit=32, eval_limit=8, batch_size=8,
        max_prompt_len=32, max_response_len=32,
    )  # fmt: skip
    assert rm.fit(2, optax.adam(1e-3), console=None) == ExitCode.OK
    scores = rm.reward(["Once upon a time"] * 2, [" there was a cat.", " a dog sat."])
    assert scores.shape == (2,) and scores[0] != scores[1]
    run = jalign.online("rloo", policy, PROMPTS, {"rm": rm}, max_new_tokens=4, batch_size=2)
    assert run.fit(1, optax.sgd(1e-3), console=None) == ExitCode.OK


def test_log_probs_of_pairs_are_those_that_dpo_reads(policy):
    rows = [
        {"prompt": "The cat", "chosen": " sat on the mat.", "rejected": " ran."},
        {"prompt": "Tom", "chosen": " was sad.", "rejected": " had a ball and a big red kite."},
    ]
    scores = jalign.score(policy, rows)
    assert scores.logps.shape == (2, 2) and (scores.logps < 0).all()
    np.testing.assert_allclose(scores.logps, scores.token_logps.sum(-1), rtol=1e-6)
    run = jalign.offline("dpo", policy, rows, eval=rows, batch_size=2)
    metrics = run.evaluate()
    assert metrics["logps/chosen"] == pytest.approx(scores.logps[:, 0].mean(), rel=1e-4)
    assert metrics["logps/rejected"] == pytest.approx(scores.logps[:, 1].mean(), rel=1e-4)


def test_a_source_of_ones_own_gives_the_batches(policy):
    both = [(prompt, topic) for prompt in PROMPTS for topic in TOPICS]
    rows = [{"prompt": p, "chosen": " was sad.", "rejected": f" {t}."} for p, t in both]
    short = {"eval": rows[:2], "batch_size": 4}
    run = jalign.offline("dpo", policy, rows, **short)
    assert run.fit(2, optax.sgd(1.0), console=None, log_every=1) == ExitCode.OK
    with jax.set_mesh(policy.mesh):
        spec = policy.decoder.spec
        source = source_of(run.options, run.setup.examples, policy.mesh, spec)
    own = jalign.offline("dpo", policy, source=source, **short)
    assert own.fit(2, optax.sgd(1.0), console=None, log_every=1) == ExitCode.OK
    losses = [[r["loss"] for r in x.record if r["kind"] == "train"] for x in (run, own)]
    assert losses[0] == losses[1] and losses[0][0] != losses[0][1]
    with pytest.raises(ValueError, match="steps must be set"):
        jalign.offline("dpo", policy, source=lambda state, frozen: (), **short).fit(console=None)


def test_an_evaluation_is_what_the_record_has_of_one(policy, tmp_path):
    """Of binary data, whose margin is no metric of the loss; the record's texts may hold any
    character, and its last line may be the half of one.
    """
    rows = [
        {"prompt": f"{prompt} {i}", "completion": f" {topic}\u2028.", "label": bool(i % 2)}
        for i, (prompt, topic) in enumerate(zip(PROMPTS, TOPICS, strict=True))
    ]
    run = jalign.offline("kto", policy, rows, eval=rows, batch_size=4)
    sample = SampleConfig(prompts=1, max_new_tokens=2)
    assert run.fit(1, optax.sgd(1.0), str(tmp_path), sample=sample, console=None) == ExitCode.OK
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        texts = {"step": 1, "kind": "texts", "rows": ["\u2028"]}
        file.write(json.dumps(texts, ensure_ascii=False) + "\n" + '{"step": 1, "ki')
    assert run.record[-1] == texts
    metrics = run.evaluate()
    assert "rewards/margins" in metrics
    last = run.evaluations[-1]
    assert metrics == pytest.approx({name: last[name] for name in metrics}, rel=1e-6)


def test_what_is_misspelt_is_refused_with_the_nearest_name(policy):
    with pytest.raises(TypeError, match="max_new_tokens"):
        jalign.online("grpo", policy, PROMPTS, {"length": length}, max_new_token=8)
    with pytest.raises(TypeError, match="did you mean 'beta'"):
        jalign.offline("dpo", policy, "embedded", betta=0.1)
    with pytest.raises(ValueError, match=r"use jalign\.online"):
        jalign.offline("grpo", policy, "embedded")
    with pytest.raises(ValueError, match="rewards"):
        jalign.online("grpo", policy, PROMPTS)
    with pytest.raises(ValueError, match="set steps"):
        jalign.online("grpo", policy, PROMPTS, {"length": length}).fit(console=None)
