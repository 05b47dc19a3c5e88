"""Runs that repeat bit for bit on GPUs."""

from __future__ import annotations

import os

from jax._src.xla_bridge import backends_are_initialized

FLAG = "--xla_gpu_deterministic_ops"


def make_deterministic() -> None:
    """Make XLA use deterministic operations and no autotuning, which selects kernels by their time.
    XLA reads its flags once, when a backend starts.

    Raises:
      ValueError: a backend has started without the flag, or XLA_FLAGS contradicts it.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    given = [f for f in flags if f.partition("=")[0] == FLAG]
    if given:
        if given[-1].partition("=")[2].lower() not in ("", "true", "1"):
            raise ValueError(f"deterministic: true contradicts XLA_FLAGS, which says {given[-1]}")
        return
    if backends_are_initialized():  # JAX has no public function for this
        raise ValueError(
            "deterministic: true comes too late: JAX has started its devices. Train in a process "
            f"of its own (jalign train), or start this one with XLA_FLAGS={FLAG}=true"
        )
    os.environ["XLA_FLAGS"] = " ".join([*flags, f"{FLAG}=true"])
