"""Checks before several processes start to train together."""

from __future__ import annotations

import hashlib
import os
import time
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jalign import store
from jalign.parallel import hosts

MOST_SKEW_S = 300  # beyond it storage refuses credentials
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_FILE = ".jalign_preflight"


def preflight(out: str | os.PathLike) -> None:
    """Check that all processes have the same code and devices, synchronized clocks, a shared folder
    `out` and working collectives. With one process there is nothing to check.

    Raises:
      ValueError: on every process, naming what differs.
    """
    if jax.process_count() == 1:
        return
    hosts.check_processes_agree("the code (versions, files of jalign)", code())
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    hosts.check_processes_agree("the devices of a process", (jax.local_device_count(), kinds))
    _clocks()
    _collective()
    _folder(store.as_path(out))


def code() -> str:
    """Versions of the numerical packages, and a digest of jalign's source."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return f"{versions}, jalign {digest.hexdigest()[:12]}"


def _clocks() -> None:
    hosts.barrier("jalign clocks")
    # An integer, since float32 seconds since 1970 come in steps of 128.
    times = multihost_utils.process_allgather(np.uint32(time.time())).astype(int)
    if times.max() - times.min() > MOST_SKEW_S:
        ahead = ", ".join(f"process {i}: {t - times[0]:+d} s" for i, t in enumerate(times))
        raise ValueError(f"the clocks of the hosts differ by more than {MOST_SKEW_S} s ({ahead})")


def _collective() -> None:
    """Check a sum over all devices."""
    n = jax.device_count()
    mesh = Mesh(np.array(jax.devices()), ("all",))
    sharding = NamedSharding(mesh, PartitionSpec("all"))
    ranks = jax.make_array_from_callback((n,), sharding, lambda i: np.arange(n)[i])
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))(ranks)
    if int(total) != n * (n - 1) // 2:
        raise ValueError(f"the sum over {n} devices is {int(total)}, not {n * (n - 1) // 2}")


def _folder(out: store.StorePath) -> None:
    """Process 0 writes a number to the folder, and all processes must read it."""
    number = hosts.broadcast_int(time.time_ns() % 2**31)

    def leave() -> None:
        out.mkdir(parents=True, exist_ok=True)
        (out / _FILE).write_text(str(number))

    hosts.call_on_main(leave)
    hosts.barrier("jalign preflight")
    own_file = out / f"{_FILE}_{jax.process_index()}"  # checkpoints are written by all
    try:
        own_file.write_text("")
        own_file.unlink()
        content = (out / _FILE).read_text()
    except Exception as error:  # a store's library has error classes of its own
        content = f"{type(error).__name__}: {error}"
    try:
        hosts.check_processes_agree(f"the folder {out}, which all must share", content)
    finally:
        if hosts.is_main():
            (out / _FILE).unlink(missing_ok=True)
