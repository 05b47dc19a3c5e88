"""Every exit code that is documented, reached by a real process."""

import json
import os
import subprocess
import sys

import pytest

from jalign.train.exit_code import ExitCode
from tests._xla import QUICK
from tests.tiny_run import arguments

REWARDS = """
import os, signal

def raises(prompts, responses):
    raise RuntimeError("the reward is out of order")

def told_to_stop(prompts, responses):
    os.kill(os.getpid(), signal.SIGTERM)
    return [float(len(text)) for text in responses]
"""
ONE = {"mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1, "data.holdout": 0, "checkpoint.every": 0}
ONLINE = ONE | {"rollout.max_new_tokens": 2, "rollout.responses": 2, "batch_size": 2}


def jalign(*words, before=""):
    """Exit code, and what was printed; `before` is said to the shell that starts it."""
    env = os.environ | {"XLA_FLAGS": QUICK, "COLUMNS": "400"}
    command = ["bash", "-c", f'{before} exec "$@"', "-", sys.executable, "-m", "jalign", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def train(folder, out, algorithm="simpo", /, before="", **options):
    return jalign("train", *arguments(folder, out, algorithm, **ONE | options), before=before)


@pytest.fixture(scope="module")
def rewards(folder):
    (folder / "rewards.py").write_text(REWARDS)
    return lambda name: {"reward.functions": json.dumps({f"{folder}/rewards.py:{name}": 1.0})}


def test_0_a_run_that_is_done_and_says_so_when_it_is_given_again(folder):
    code, said = train(folder, "done", steps=1)
    assert code == ExitCode.OK and "1 steps in" in said
    code, said = train(folder, "done", steps=1)
    assert code == ExitCode.OK and "done already: 1 of 1 steps" in said
    assert "steps in" not in said


def test_2_a_wrong_config(folder):
    code, said = train(folder, "wrong", stepz=1)
    assert code == ExitCode.BAD_CONFIG and "jalign: error: no option 'stepz'" in said


def test_3_data_that_are_not_there(folder):
    code, said = train(folder, "input", **{"data.train": str(folder / "no.jsonl")})
    assert code == ExitCode.BAD_INPUT and "no.jsonl" in said


def test_4_training_that_diverges_in_fewer_steps_than_max_bad_steps(folder):
    far = {"optim.learning_rate": 1e30, "optim.clip_norm": "null", "optim.name": "sgd"}
    code, said = train(folder, "diverged", steps=3, **far)
    assert code == ExitCode.DIVERGED and "the last 2 steps had a loss or gradient" in said
    assert "steps in" not in said  # no success is claimed


def test_5_a_checkpoint_that_cannot_be_written(folder):
    code, said = train(folder, "full", before="ulimit -f 20;", steps=1)  # KiB of any file
    assert code == ExitCode.CHECKPOINT_FAILED
    assert "the last checkpoint was not saved in" in said


def test_6_rewards_that_never_come(folder, rewards):
    code, said = train(folder, "nothing", "grpo", **ONLINE | rewards("raises"), steps=2)
    assert code == ExitCode.NOTHING_LEARNED and "the reward is out of order" in said


def test_42_a_run_that_is_told_to_stop(folder, rewards):
    code, said = train(folder, "told", "grpo", **ONLINE | rewards("told_to_stop"), steps=3)
    assert code == ExitCode.PREEMPTED
    assert "stopping after this step and saving (told by SIGTERM)" in said
    assert "preempted: step 1 is saved" in said
    assert (folder / "told" / "checkpoints" / "1").is_dir()
