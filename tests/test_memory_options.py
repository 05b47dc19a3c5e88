"""Runs with 8-bit moments, with their state on the host, and deterministic ones."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from jalign.checkpoint.resume import ResumeError
from jalign.config.read import ConfigError, read_config
from jalign.parallel.deterministic import make_deterministic
from jalign.train.preemption import ExitCode
from tests._runs import leaves, rows, run
from tests.tiny_run import arguments

HOST = {"optim.offload": "host", "model.reference_offload": "host"}
QUICK = {"mesh.tensor": 1, "mesh.fsdp": 4, "data.holdout": 0, "model.depth": 1}


@pytest.fixture(scope="module")
def plain(folder):
    assert run(folder, "plain", **QUICK) == ExitCode.OK
    return rows(folder, "plain")


def test_a_run_on_the_hosts_memory_goes_on_without_it_and_ends_in_the_same_bits(folder, plain):
    assert run(folder, "host", steps=2, **QUICK, **HOST) == ExitCode.OK
    assert run(folder, "host", **QUICK) == ExitCode.OK
    assert leaves(folder, "host", 4) == leaves(folder, "plain", 4)
    for a, b in zip(plain, rows(folder, "host"), strict=True):
        assert a["loss"] == b["loss"] and a["grad_norm"] == b["grad_norm"]


def test_a_run_with_8_bit_moments_learns_and_goes_on_exactly(folder, plain):
    options = QUICK | {"optim.moments": "int8", "checkpoint.keep": 4}
    assert run(folder, "int8", **options) == ExitCode.OK
    shutil.copytree(folder / "int8", folder / "killed")
    for step in ("3", "4"):
        shutil.rmtree(folder / "killed" / "checkpoints" / step)
    assert run(folder, "killed", **options) == ExitCode.OK
    assert leaves(folder, "killed", 4) == leaves(folder, "int8", 4)
    kept = leaves(folder, "int8", 4)
    assert {kept[n][0] for n in kept if n.endswith(".codes")} == {"int8", "uint8"}
    losses = [r["loss"] for r in rows(folder, "int8")]
    exact = [r["loss"] for r in plain]
    assert losses[-1] < losses[0] and losses != exact
    assert losses == pytest.approx(exact, rel=1e-3)
    with pytest.raises(ResumeError, match=r"optimizer\.moments: the checkpoint has 'int8'"):
        run(folder, "killed", **QUICK)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"algorithm": "simpo"}, "simpo reads no reference"),
        ({"reference": "cached"}, "reference: cached keeps none"),
        ({"model.lora.rank": 2}, "share the same frozen weights"),
        ({"algorithm": "tr_dpo"}, "part of what is trained"),
    ],
)
def test_a_reference_that_cannot_wait_on_the_host_is_refused(folder, options, why):
    options = {"model.reference_offload": "host"} | options
    with pytest.raises(ConfigError, match=f"model.reference_offload does not apply: .*{why}"):
        read_config(arguments(folder, **options))


def test_an_optimizer_without_state_cannot_be_offloaded(folder):
    with pytest.raises(ConfigError, match="offload: host does not apply to sgd without momentum"):
        read_config(arguments(folder, **{"optim.name": "sgd", "optim.offload": "host"}))


def test_a_deterministic_run_sets_xlas_flag_before_xla_reads_it(folder, tmp_path):
    """Its process, but for a small program instead of the training."""
    code = """
import sys, jax
from jalign.cli import main
from jalign.run import run
run.set_up = lambda *_: sys.exit(int(jax.jit(lambda x: x - 1)(1.0)))
main.main(sys.argv[1:])
"""
    command = [sys.executable, "-c", code, "train", *arguments(folder, deterministic="true")]
    flags = f"--xla_force_host_platform_device_count=8 --xla_dump_to={tmp_path}"
    # a program from the cache is not compiled, so nothing would be dumped
    env = os.environ | {"XLA_FLAGS": flags, "JAX_COMPILATION_CACHE_DIR": ""}
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=300)
    (options,) = tmp_path.glob("*jit__lambda.debug_options")
    assert re.search("^xla_gpu_deterministic_ops: true$", options.read_text(), re.MULTILINE)


def test_a_deterministic_run_in_a_process_that_has_devices_is_refused(folder, monkeypatch):
    with pytest.raises(ValueError, match="comes too late: JAX has started its devices"):
        run(folder, "late", deterministic="true")
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=false")
    with pytest.raises(ValueError, match="contradicts XLA_FLAGS, which says --xla_gpu_determ"):
        make_deterministic()
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_deterministic_ops=true")
    make_deterministic()
