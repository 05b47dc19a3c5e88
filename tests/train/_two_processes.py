"""One of two processes of a run: _two_processes.py DIRECTORY, told by the environment who it is."""

import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.checkpoint.errors import CheckpointError
from jalign.parallel import hosts
from jalign.parallel.preflight import preflight
from jalign.train.preemption import ExitCode, Preemption

_, HARD = resource.getrlimit(resource.RLIMIT_FSIZE)
ROWS = np.arange(32.0, dtype=np.float32).reshape(8, 4)


def main(directory):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    hosts.initialize(heartbeat_timeout_s=30)
    me = jax.process_index()
    hosts.check_processes_agree("the seed", 7)
    try:
        hosts.check_processes_agree("the seed", 7 + me)
    except ValueError as e:
        print("DISAGREE", e, flush=True)
    assert hosts.is_main() == (me == 0)
    assert hosts.any_process(me == 1)
    assert not hosts.any_process(False)
    assert hosts.broadcast_int(me + 5) == 5
    assert hosts.call_on_main(lambda: [me, None, "é"]) == [0, None, "é"]
    asked = []
    assert hosts.call_on_main(lambda: asked.append(me) or me, everywhere=True) == 0
    assert asked == [me]
    for fails in (lambda: 1 // 0, lambda: int("no key"), object):  # JSON cannot tell the last
        try:
            hosts.call_on_main(fails)
        except Exception as e:
            print("FAILED", type(e).__name__, e, flush=True)

    preflight(directory + "-shared")
    for out in (f"{directory}-of-{me}", directory + "-shared"):
        with pytest.MonkeyPatch.context() as patch:
            if out.endswith("-shared"):
                patch.setattr("jalign.parallel.preflight.code", lambda: f"jalign of host {me}")
            try:
                preflight(out)
            except ValueError as e:
                print("REFUSED", e, flush=True)

    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("data")
    batch = hosts.to_global(mesh, spec, {"x": ROWS[me * 4 : me * 4 + 4], "count": np.int32(3)})
    shardings = {
        "w": NamedSharding(mesh, spec),
        "key": NamedSharding(mesh, PartitionSpec()),
        "n": NamedSharding(mesh, PartitionSpec()),
    }
    state = jax.jit(
        lambda: {"w": jnp.zeros((8, 4)), "key": jax.random.key(7), "n": jnp.int32(0)},
        out_shardings=shardings,
    )()
    advance = jax.jit(
        lambda s, b: {**s, "w": s["w"] + b["x"] * b["count"], "n": s["n"] + 1},
        out_shardings=shardings,
    )
    if me == 1:  # its disk is full, the other's is not
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, HARD))
    failing = Checkpointer(directory + "-failing", timeout_s=3)
    failing.save(1, state, {})
    assert not failing.needs_retry()
    try:
        failing.wait()
    except CheckpointError as e:
        print("HEARD", e, flush=True)
    if me == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (HARD, HARD))
    failing.save(2, state, {})
    failing.wait()
    assert failing.steps() == [2]

    with Checkpointer(directory) as checkpointer, Preemption() as preemption:
        preemption.check()
        assert checkpointer.restore(state) is None
        for step in range(1, 1000):
            state = advance(state, batch)
            if step <= 3:
                checkpointer.save(step, state, {"seen": 8 * step})
            if step == 4:
                checkpointer.wait()
                found = checkpointer.restore(state, 2)
                assert found is not None and int(found[1]["n"]) == 2
                print("READY", flush=True)
            time.sleep(0.02)
            if preemption.reached(step):
                checkpointer.save(step, state, {"seen": 8 * step})
                checkpointer.wait()
                print("PREEMPTED", step, flush=True)
                jax.distributed.shutdown()
                sys.exit(ExitCode.PREEMPTED)


if __name__ == "__main__":
    main(sys.argv[1])
