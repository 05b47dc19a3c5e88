"""Multi-process runs: start, exchange data, and check that all processes agree."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

_OF_THE_USER = (ValueError, TypeError, OSError)
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JALIGN_NUM_PROCESSES", "JALIGN_PROCESS_ID")

Result = TypeVar("Result")


def _integer(name: str, value: int | str | None) -> int | None:
    try:
        return None if value is None else int(value)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat_timeout_s: int | None = None,
    initialization_timeout_s: int = 300,
) -> None:
    """Join the other processes of this run. Must be called before JAX touches a device.

    Without any of the three values, JAX asks the cluster that started this process (Slurm's srun,
    Open MPI, a TPU pod, an indexed Kubernetes job); without a cluster the run has one process and
    this does nothing. JALIGN_NUM_PROCESSES=1 is one process anywhere.

    Args:
      coordinator: "host:port" of process 0, or "auto" to ask the cluster. Default: the environment
        variable JAX_COORDINATOR_ADDRESS.
      num_processes: their number. Default: JALIGN_NUM_PROCESSES.
      process_id: index of this one, from 0. Default: JALIGN_PROCESS_ID.
      heartbeat_timeout_s: when a process dies, its peers exit within about this time, so that a
        launcher can restart. Default: JALIGN_HEARTBEAT_S, or 60.
      initialization_timeout_s: how long to wait for all processes to start.

    Raises:
      ValueError: only some of the values are given, or they contradict each other.
    """
    if heartbeat_timeout_s is None:
        heartbeat_timeout_s = _integer("JALIGN_HEARTBEAT_S", os.environ.get("JALIGN_HEARTBEAT_S"))
    timeouts: dict[str, Any] = {
        # JAX's default of 100 s kept the peers of a killed process waiting for 92 s.
        "heartbeat_timeout_seconds": heartbeat_timeout_s or 60,
        "initialization_timeout": initialization_timeout_s,
    }
    env = [os.environ.get(name) or None for name in _VARIABLES]
    coordinator = coordinator or env[0]
    alone = (coordinator, num_processes, process_id, env[1], env[2]) == (None,) * 5
    if coordinator == "auto" or (alone and _in_cluster()):
        os.environ.pop(_VARIABLES[0], None)  # JAX reads it too, and would take the word for a host
        _release_sigterm()
        jax.distributed.initialize(**timeouts)
        return
    count = _integer("num_processes", env[1] if num_processes is None else num_processes)
    index = _integer("process_id", env[2] if process_id is None else process_id)
    if coordinator is None and count in (None, 1) and index in (None, 0):
        return
    missing = [
        name for name, v in zip(_VARIABLES, (coordinator, count, index), strict=True) if v is None
    ]
    if coordinator is None or count is None or index is None:
        raise ValueError(
            "several processes need a coordinator address, a number of processes and a process id;"
            f" missing: {', '.join(missing)} (or the argument of that meaning);"
            " coordinator='auto' asks the cluster"
        )
    if not 0 <= index < count:
        raise ValueError(
            f"process_id must be from 0 to {count - 1} (num_processes is {count}), got {index}"
        )
    _release_sigterm()
    jax.distributed.initialize(coordinator, count, index, **timeouts)


def _in_cluster() -> bool:
    """Whether a cluster that JAX can query started this process."""
    # JAX's own detection raises where there is no cluster, which is the usual case.
    env = os.environ
    if any(int(env.get(n) or 1) > 1 for n in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")):
        return True
    if env.get("TPU_ML_PLATFORM") == "JAX":  # set by JAX if it detects TPU chips
        return "TPU_WORKER_HOSTNAMES" in env or "TPU_SKIP_MDS_QUERY" not in env
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        return importlib.util.find_spec("kubernetes") is not None  # JAX queries the API with it
    return False


def _release_sigterm() -> None:
    # JAX's preemption notifier works below Python: a handler set earlier would be overridden, but
    # still look installed.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_main() -> bool:
    """Whether this is process 0: the one that logs, writes and deletes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process has arrived."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Whether `flag` is true on at least one process. Collective."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def broadcast_int(number: int) -> int:
    """Process 0's number (32 bits), on every process. Collective."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.asarray(number, np.int32)))


def call_on_main(make: Callable[[], Result], *, everywhere: bool = False) -> Result:
    """The result of `make()` on process 0, on every process. Collective.

    For calls that should happen once (a server, a user's function) or may differ between hosts.

    Args:
      make: returns something JSON can hold (None, numbers with NaN, strings, lists, dicts).
      everywhere: run it on every process, as a program over all devices requires; the others drop
        their results, and an error is raised on the process where it happens.

    Raises:
      ValueError, RuntimeError: on the others, with the message, if `make` failed on process 0,
        which raises the original error. ValueError is for errors that the user can fix.
    """
    if jax.process_count() == 1:
        return make()
    if everywhere:
        result = make()
        return call_on_main(lambda: result)
    text, failure = "", None
    if is_main():
        try:
            text = json.dumps({"result": make()})
        # Whatever happens, something must be broadcast: the other processes are waiting for it.
        except (Exception, SystemExit) as error:
            failure = error
            message = f"process 0 failed: {type(error).__name__}: {error}"
            text = json.dumps({"error": message, "user": isinstance(error, _OF_THE_USER)})
    sent = np.frombuffer(text.encode(), np.uint8)
    # The length goes first: a broadcast needs the same shape on every process.
    padded = np.zeros(broadcast_int(len(sent)), np.uint8)
    padded[: len(sent)] = sent
    reply = json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))))
    if failure is not None:
        raise failure
    if "error" in reply:
        raise (ValueError if reply["user"] else RuntimeError)(reply["error"])
    return reply["result"]


def check_processes_agree(name: str, value: object) -> None:
    """Check that `value` has the same `repr` on every process. Collective.

    Raises:
      ValueError: on every process, naming those that differ from process 0, with their values.
    """
    if jax.process_count() == 1:
        return
    text = repr(value).encode()
    shown = np.frombuffer(text[:200].ljust(200), np.uint8)
    digest = np.frombuffer(hashlib.sha256(text).digest(), np.uint8)
    rows = multihost_utils.process_allgather(np.concatenate([digest, shown]))
    differ = [i for i, row in enumerate(rows) if not np.array_equal(row[:32], rows[0][:32])]
    if differ:
        values = {i: bytes(rows[i][32:]).decode(errors="replace").strip() for i in [0, *differ]}
        raise ValueError(
            f"the processes do not agree on {name}: "
            + "; ".join(f"process {i} has {text}" for i, text in values.items())
        )


def gather(x: jax.Array) -> np.ndarray:
    """Gather an array to this host. Collective if it is sharded over several processes."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def to_global(mesh: Mesh, spec: PartitionSpec, local: PyTree) -> PyTree:
    """Build global arrays over the mesh from each process's local part, leaf by leaf.

    Args:
      mesh: over the devices of all processes.
      spec: how the leading axes are split, such as `P(("data", "fsdp"))`. Leaves without axes are
        the same everywhere.
      local: pytree of numpy arrays: this process's rows.
    """

    def one(x: Any) -> jax.Array:
        x = np.asarray(x)
        sharding = NamedSharding(mesh, spec if x.ndim else PartitionSpec())
        return jax.make_array_from_process_local_data(sharding, x)

    return jax.tree.map(one, local)
