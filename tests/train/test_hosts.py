import signal
import socket

import _subprocesses
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.parallel import hosts

P = PartitionSpec


@pytest.fixture
def calls(monkeypatch):
    """What `jax.distributed.initialize` is called with."""
    for name in (
        "JAX_COORDINATOR_ADDRESS", "JALIGN_NUM_PROCESSES", "JALIGN_PROCESS_ID",
        "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_ML_PLATFORM", "TPU_SKIP_MDS_QUERY",
        "TPU_WORKER_HOSTNAMES", "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    found = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: found.append((a, k)))
    handler = signal.getsignal(signal.SIGTERM)
    yield found
    signal.signal(signal.SIGTERM, handler)


TIMEOUTS = {"heartbeat_timeout_seconds": 60, "initialization_timeout": 300}


def test_without_any_value_the_run_has_one_process(calls):
    hosts.initialize()
    hosts.initialize(num_processes=1, process_id=0)
    assert calls == []


def test_the_three_values_come_from_arguments_or_from_the_environment(calls, monkeypatch):
    hosts.initialize("h:1", 2, 0, heartbeat_timeout_s=10)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "k:2")
    monkeypatch.setenv("JALIGN_NUM_PROCESSES", "4")
    monkeypatch.setenv("JALIGN_PROCESS_ID", "3")
    hosts.initialize()
    hosts.initialize(process_id=0)
    assert calls == [
        (("h:1", 2, 0), TIMEOUTS | {"heartbeat_timeout_seconds": 10}),
        (("k:2", 4, 3), TIMEOUTS),
        (("k:2", 4, 0), TIMEOUTS),
    ]


def test_auto_asks_the_cluster(calls):
    hosts.initialize("auto")
    assert calls == [((), TIMEOUTS)]


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_ML_PLATFORM": "JAX"}, True),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"}, False),
        ({"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "a"}, True),
        ({"KUBERNETES_SERVICE_HOST": "k"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4", "JALIGN_NUM_PROCESSES": "1"}, False),
    ],
)
def test_a_cluster_that_started_the_process_is_asked(calls, monkeypatch, env, asked):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    hosts.initialize()
    assert calls == [((), TIMEOUTS)] * asked


def test_half_an_answer_names_what_is_missing(calls, monkeypatch):
    with pytest.raises(ValueError, match="missing: JAX_COORDINATOR_ADDRESS, JALIGN_PROCESS_ID"):
        hosts.initialize(num_processes=2)
    with pytest.raises(ValueError, match="missing: JALIGN_NUM_PROCESSES, JALIGN_PROCESS_ID"):
        hosts.initialize("h:1")
    with pytest.raises(ValueError, match="process_id must be from 0 to 1"):
        hosts.initialize("h:1", 2, 2)
    monkeypatch.setenv("JALIGN_NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match="num_processes must be a whole number, got 'two'"):
        hosts.initialize()
    assert calls == []


def test_joining_others_leaves_sigterm_to_jax(calls):
    signal.signal(signal.SIGTERM, lambda *_: None)
    hosts.initialize("h:1", 2, 0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_to_global_splits_rows_and_repeats_scalars():
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "fsdp"))
    local = {"x": np.arange(16.0, dtype=np.float32).reshape(8, 2), "n": np.int32(7), "none": None}
    made = hosts.to_global(mesh, P(("data", "fsdp")), local)
    assert made["x"].sharding == NamedSharding(mesh, P(("data", "fsdp")))
    assert made["x"].addressable_shards[5].data.tolist() == [[10.0, 11.0]]
    assert int(made["n"]) == 7 and made["n"].sharding.is_fully_replicated
    assert made["none"] is None


def test_one_process_agrees_with_itself():
    hosts.check_processes_agree("anything", object())
    hosts.barrier("nobody waits")
    assert hosts.is_main()
    assert hosts.any_process(True) and not hosts.any_process(False)
    assert hosts.broadcast_int(2**31 - 1) == 2**31 - 1


def test_two_processes_agree_save_and_hear_of_failures_and_stop_together_and_one_goes_on(tmp_path):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}"
    pair = [
        _subprocesses.start(
            "_two_processes.py", tmp_path / "run",
            JAX_COORDINATOR_ADDRESS=address, JALIGN_NUM_PROCESSES="2", JALIGN_PROCESS_ID=str(i),
        )
        for i in range(2)
    ]  # fmt: skip
    try:
        said = _subprocesses.read_until(pair[1], "READY")
        pair[1].send_signal(signal.SIGTERM)  # to one of the two only
        ends = [_subprocesses.finish(p) for p in pair]
    finally:
        for p in pair:
            p.kill()
    assert (
        "DISAGREE the processes do not agree on the seed: process 0 has 7; process 1 has 8" in said
    )
    assert "FAILED RuntimeError process 0 failed: ZeroDivisionError" in said
    assert "FAILED ValueError process 0 failed: ValueError: invalid literal for int()" in said
    assert "FAILED ValueError process 0 failed: TypeError: Object of type object is not" in said
    assert "FAILED ZeroDivisionError integer division" in ends[0][0]
    assert "do not agree on the folder" in said and 'process 1 has "FileNotFoundError' in said
    assert "do not agree on the code" in said and "process 1 has 'jalign of host 1'" in said
    assert said.count("REFUSED") == 2
    assert [code for _, code in ends] == [42, 42], ends
    assert all("HEARD the last checkpoint was not saved" in out for out in (said, ends[0][0]))
    stopped = {line for out, _ in ends for line in out.splitlines() if line.startswith("PREEMPTED")}
    assert len(stopped) == 1, ends  # the same step on both
    step = int(stopped.pop().split()[1])

    mesh = Mesh(np.array(jax.devices()[:6]).reshape(3, 2), ("x", "y"))  # was 4 devices on 2 hosts
    one_device = jax.eval_shape(lambda: {"key": jax.random.key(0), "n": jnp.int32(0)})
    w = jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=NamedSharding(mesh, P(None, "y")))
    restored = Checkpointer(tmp_path / "run").restore({"w": w, **one_device})
    assert restored is not None
    found, state, meta = restored
    rows = np.arange(32.0, dtype=np.float32).reshape(8, 4)
    assert (found, int(state["n"]), meta["seen"]) == (step, step, 8 * step)
    np.testing.assert_array_equal(state["w"], 3 * step * rows)
    assert state["w"].sharding == w.sharding
    assert jax.random.key_data(state["key"]).tolist() == [0, 7]
