"""Whole runs of several processes over gloo, started by launch/local_processes.py: as on hosts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jalign.models import hub
from jalign.train.preemption import ExitCode
from tests._runs import ONLINE, rows, run
from tests.tiny_run import arguments

ROOT = Path(__file__).parents[1]
MESH = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
FOUR_DEVICES = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 1}
TWO = ("--processes", "2", "--devices", "2")
FOUR = ("--processes", "4", "--devices", "1")

# Each process would give other rewards, and writes down that it was asked.
WHOSE = """
import os
from pathlib import Path

def whose(prompts, responses):
    rank = os.environ.get("JALIGN_PROCESS_ID", "0")
    with Path(__file__).with_name("asked").open("a") as file:
        file.write(f"{rank} ")
    return [(1 - 2 * int(rank)) * len(response.split()) for response in responses]
"""


def several(*launch):
    """What local_processes.py starts; the exit code and what was printed."""
    command = [sys.executable, str(ROOT / "launch" / "local_processes.py"), *launch]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": paths, "JALIGN_HEARTBEAT_S": "10"}
    # every process compiles every program, and few steps are taken with it
    env |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    return done.returncode, done.stdout + done.stderr


def jalign_train(*given, **options):
    return [sys.executable, "-m", "jalign", "train", *arguments(*given, **FOUR_DEVICES | options)]


def the_same(folder, one, two):
    for a, b in zip(rows(folder, one), rows(folder, two), strict=True):
        assert (a["step"], a["num_tokens"]) == (b["step"], b["num_tokens"])
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def dpo(folder):
    """DPO on one process."""
    assert run(folder, "dpo-one", "dpo", **MESH) == ExitCode.OK


@pytest.fixture(scope="module")
def online(folder):
    """The options of a run by a function, a judge and a reward model; it has run on one process."""
    (folder / "whose.py").write_text(WHOSE)
    heads = hub.load(folder / "model", value_head=True)
    hub.save(heads, folder / "reward", folder / "model")
    options = ONLINE | {"steps": 2, "reward.model": str(folder / "reward")}
    options["reward.functions"] = json.dumps({f"{folder}/whose.py:whose": 1.0})
    options |= {"reward.judge.ask": "score", "reward.judge.model": str(folder / "model")}
    assert run(folder, "grpo-one", "grpo", **MESH, **options) == ExitCode.OK
    assert asked(folder) == ["0"] * 3  # one rollout, and the held-out prompts twice
    return options


def asked(folder):
    """Which processes were asked for rewards since this was looked at."""
    said = (folder / "asked").read_text().split()
    (folder / "asked").unlink()
    return said


def test_dpo_on_two_processes_is_dpo_on_one_and_a_killed_process_is_made_up_for(folder, dpo):
    kill = f"1:{folder / 'dpo-two' / 'checkpoints' / '1'}"
    command = jalign_train(folder, "dpo-two", "dpo")
    code, said = several("--kill", kill, *TWO, "--restarts", "1", "--", *command)
    assert code == 0, said
    first, *_, last = (line for line in said.splitlines() if line.startswith("exit codes: "))
    assert "137" in first and last == "exit codes: [0, 0]"
    the_same(folder, "dpo-one", "dpo-two")


def test_grpo_on_two_processes_learns_what_one_does_from_rewards_asked_once(folder, online):
    code, said = several(*TWO, "--", *jalign_train(folder, "grpo-two", "grpo", **online))
    assert code == 0, said
    assert asked(folder) == ["0"] * 3
    the_same(folder, "grpo-one", "grpo-two")
    one, two = rows(folder, "grpo-one"), rows(folder, "grpo-two")
    for name in ("reward", "rewards/whose/mean", "rewards/judge/mean", "rewards/model/mean"):
        assert one[0][name] == pytest.approx(two[0][name])  # the rollout's first step says it


def test_four_processes_told_to_stop_save_and_one_goes_on_with_another_mesh(folder, dpo):
    """A SIGTERM is sent to the third."""
    kill = f"2:{folder / 'dpo-four' / 'checkpoints' / '1'}:TERM"
    command = jalign_train(folder, "dpo-four", "dpo", steps=60)
    code, said = several(*FOUR, "--kill", kill, "--", *command)
    assert code == ExitCode.PREEMPTED, said
    assert "exit codes: [42, 42, 42, 42]" in said
    stopped = rows(folder, "dpo-four")[-1]["step"]
    assert 1 <= stopped < 60
    steps = max(4, stopped + 2)
    for out in ("dpo-one", "dpo-four"):
        assert run(folder, out, "dpo", **MESH, steps=steps) == ExitCode.OK
    the_same(folder, "dpo-one", "dpo-four")


def test_a_dry_run_prints_every_command(folder):
    shown = arguments(folder, "x", "dpo", **MESH)
    launcher = [sys.executable, str(ROOT / "launch" / "local_processes.py"), "--dry-run", "--"]
    done = subprocess.run([*launcher, "jalign", "train", *shown], capture_output=True, text=True)
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert [f"JALIGN_PROCESS_ID={i}" in line for i, line in enumerate(lines)] == [True, True]
    assert all("JALIGN_NUM_PROCESSES=2" in line and "jalign train" in line for line in lines)
