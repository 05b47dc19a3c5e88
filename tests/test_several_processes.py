"""Whole runs of two processes over gloo, started by launch/local_processes.py: as on two hosts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jalign.train.preemption import ExitCode
from tests.test_online import ONLINE
from tests.test_runs import rows, run
from tests.tiny_run import arguments

ROOT = Path(__file__).parents[1]
MESH = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
TWO = ("--processes", "2", "--devices", "2")


def several(folder, out, algorithm, *launch, **options):
    """The run on several processes, four devices in all; the exit code and what was printed."""
    train = [sys.executable, "-m", "jalign", "train"]
    train += arguments(folder, out, algorithm, **MESH | {"mesh.tensor": 1}, **options)
    command = [sys.executable, str(ROOT / "launch" / "local_processes.py"), *launch, "--", *train]
    env = os.environ | {"PYTHONPATH": str(ROOT), "JALIGN_HEARTBEAT_S": "10"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    return done.returncode, done.stdout + done.stderr


def the_same(folder, one, two):
    for a, b in zip(rows(folder, one), rows(folder, two), strict=True):
        assert (a["step"], a["num_tokens"]) == (b["step"], b["num_tokens"])
        for name in ("loss", "grad_norm"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def alone(folder):
    """DPO on one process."""
    assert run(folder, "dpo-one", "dpo", **MESH) == ExitCode.OK


def test_dpo_on_two_processes_is_dpo_on_one_and_a_killed_process_is_made_up_for(folder, alone):
    kill = f"1:{folder / 'dpo-two' / 'checkpoints' / '1'}"
    code, said = several(folder, "dpo-two", "dpo", "--kill", kill, *TWO, "--restarts", "1")
    assert code == 0, said
    first, *_, last = (line for line in said.splitlines() if line.startswith("exit codes: "))
    assert "137" in first and last == "exit codes: [0, 0]"
    the_same(folder, "dpo-one", "dpo-two")


@pytest.mark.skipif(os.environ.get("JALIGN_TINY") != "all", reason="minutes: JALIGN_TINY=all")
def test_four_processes_told_to_stop_save_and_one_goes_on_with_another_mesh(folder, alone):
    kill = f"2:{folder / 'dpo-four' / 'checkpoints' / '1'}:TERM"
    split = ("--processes", "4", "--devices", "1", "--kill", kill)
    code, said = several(folder, "dpo-four", "dpo", *split)
    assert code == ExitCode.PREEMPTED, said
    assert "exit codes: [42, 42, 42, 42]" in said
    assert 1 <= rows(folder, "dpo-four")[-1]["step"] < 4
    other = {"mesh.data": 4, "mesh.fsdp": 1, "mesh.tensor": 2}
    assert run(folder, "dpo-four", "dpo", **other) == ExitCode.OK
    the_same(folder, "dpo-one", "dpo-four")


def test_grpo_on_two_processes_samples_and_learns_what_one_does(folder):
    options = ONLINE | {"steps": 2}
    assert run(folder, "grpo-one", "grpo", **MESH, **options) == ExitCode.OK
    code, said = several(folder, "grpo-two", "grpo", *TWO, **options)
    assert code == 0, said
    the_same(folder, "grpo-one", "grpo-two")
    one, two = rows(folder, "grpo-one"), rows(folder, "grpo-two")
    assert one[0]["reward"] == pytest.approx(two[0]["reward"])  # the rollout's first step says it


def test_a_dry_run_prints_every_command(folder):
    shown = arguments(folder, "x", "dpo", **MESH)
    launcher = [sys.executable, str(ROOT / "launch" / "local_processes.py"), "--dry-run", "--"]
    done = subprocess.run([*launcher, "jalign", "train", *shown], capture_output=True, text=True)
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("+ ")]
    assert [f"JALIGN_PROCESS_ID={i}" in line for i, line in enumerate(lines)] == [True, True]
    assert all("JALIGN_NUM_PROCESSES=2" in line and "jalign train" in line for line in lines)
