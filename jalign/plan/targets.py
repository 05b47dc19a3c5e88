"""Hardware by cloud name: `v5e-16`, `2xv5p-128` (two slices), `h100`, `8xh100` (one host)."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from typing import Any

from jalign.core import did_you_mean
from jalign.kernels.devices import ACCELERATORS, Accelerator
from jalign.plan.gpus import gpu_config

# Chips along each axis of a slice, by the number of chips.
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBE = {
    4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8",
    512: "8x8x8", 1024: "8x8x16",
}  # fmt: skip


@dataclass(frozen=True)
class _Slices:
    """Slices of a TPU generation, named by chips, or by cores (two per chip)."""

    shapes: dict[int, str]
    cores_per_chip: int
    devices_per_chip: int


_TPU = {
    "v5e": _Slices(_FLAT, 1, 1),
    "v6e": _Slices(_FLAT, 1, 1),
    "v5p": _Slices(_CUBE, 2, 1),
    "tpu7x": _Slices(_CUBE, 2, 2),
}
# Cloud's API says v5litepod, everything else v5e
_ALIASES = {"v5litepod": "v5e"}
_HOST = 8  # GPUs


@dataclass(frozen=True)
class Target:
    """A hardware target.

    Attributes:
      name: as in the module docstring.
      accelerator: kind of device.
      slices: number of TPU slices, connected by the data center network; 1 for GPUs.
      topology: chips along each axis of a slice ("4x4"); for GPUs "1x1xN".
      devices: number of JAX devices of all slices.
    """

    name: str
    accelerator: Accelerator
    slices: int
    topology: str
    devices: int

    @property
    def platform(self) -> str:
        return self.accelerator.platform


def names() -> list[str]:
    """Names of every single slice, card and host."""
    slices = [f"{gen}-{chips * s.cores_per_chip}" for gen, s in _TPU.items() for chips in s.shapes]
    cards = [name for name, a in ACCELERATORS.items() if a.platform == "cuda"]
    return slices + cards + [f"{_HOST}x{card}" for card in cards]


def target(name: str) -> Target:
    """The target with this name.

    Raises:
      ValueError: unknown name; the message names the nearest.
    """
    match = re.fullmatch(r"(?:(\d+)x)?([a-z][a-z0-9]*)(?:-(\d+))?", name.lower())
    if match:
        count, kind, size = int(match[1] or 1), _ALIASES.get(match[2], match[2]), match[3]
        if kind in _TPU and size and count:
            if tpu := _slice(name, kind, int(size), count):
                return tpu
        elif kind in ACCELERATORS and kind not in _TPU and not size and count in (1, _HOST):
            return Target(name, ACCELERATORS[kind], 1, f"1x1x{count}", count)
    known = names()
    raise ValueError(
        f"no target {name!r}{did_you_mean(name, known)} (all: {', '.join(known)}; "
        "several TPU slices as 2xv5e-16)"
    )


def _slice(name: str, kind: str, size: int, count: int) -> Target | None:
    s = _TPU[kind]
    shape = s.shapes.get(size // s.cores_per_chip) if size % s.cores_per_chip == 0 else None
    if shape is None:
        return None
    chips = size // s.cores_per_chip
    return Target(name, ACCELERATORS[kind], count, shape, chips * s.devices_per_chip * count)


def topology(target: Target) -> list[Any]:
    """The devices of a target, for which programs can be compiled but not run.

    Raises:
      ValueError: the compiler for the platform is not installed.
    """
    from jax.experimental import topologies

    if target.platform == "tpu":
        _needs("libtpu", "tpu")
        # libtpu queries its host's metadata server, and locks the chips against a second process
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
        shape = f"{_libtpu_name(target)}:{target.topology}"
        more: dict[str, Any] = {"num_slices": target.slices} if target.slices > 1 else {}
        if target.topology == "1x1":  # a host with one chip; the usual one has four or eight
            more["chips_per_host_bounds"] = (1, 1, 1)
        description = topologies.get_topology_desc(platform="tpu", topology_name=shape, **more)
    else:
        _needs("jax_cuda13_plugin", "cuda")
        os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # no driver is installed
        description = topologies.get_topology_desc(
            platform="cuda",
            topology_name=target.name,
            topology=target.topology,
            target_config=gpu_config(target.accelerator),
        )
    return list(description.devices)


def _libtpu_name(target: Target) -> str:
    return next(name for name, a in ACCELERATORS.items() if a == target.accelerator)


def _needs(module: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ValueError(
            f"planning for this target needs its compiler: pip install jalign[{extra}]"
        )
