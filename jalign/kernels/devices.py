"""Accelerators: memory, arithmetic throughput, bandwidth and links.

The figures are the vendors' own for dense bfloat16; memory is what a program can use.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

GIB = 2**30


class Accelerator(NamedTuple):
    """One device as JAX counts them (a TPU7x chip is two).

    Attributes:
      kind: JAX's `device_kind`.
      platform: cpu | cuda | rocm | tpu.
      memory: bytes that programs can use.
      flops: multiplications and additions per second, bfloat16.
      bandwidth: bytes per second from its memory.
      link: bytes per second to its neighbors, all links together.
      capability: compute capability of a CUDA device.
      clock: cycles per second of a TPU's matrix units, with which their number gives `flops`.
    """

    kind: str
    platform: str
    memory: float
    flops: float
    bandwidth: float
    link: float
    capability: tuple[int, int] | None = None
    clock: float | None = None


# TPU memory is the limit that XLA enforces (15.75 of a v5e's 16 GiB). CUDA programs over the
# limit compile without an error, so a plan has to compare them with these figures.
ACCELERATORS = {
    "v5e": Accelerator("TPU v5 lite", "tpu", 15.75 * GIB, 197e12, 819e9, 200e9, clock=1.5e9),
    "v5p": Accelerator("TPU v5", "tpu", 95.74 * GIB, 459e12, 2765e9, 600e9, clock=1.75e9),
    "v6e": Accelerator("TPU v6 lite", "tpu", 31.25 * GIB, 918e12, 1640e9, 448e9, clock=1.75e9),
    "tpu7x": Accelerator("TPU7x", "tpu", 94.75 * GIB, 1153e12, 3690e9, 600e9),
    "l4": Accelerator("NVIDIA L4", "cuda", 23661445120, 121e12, 300e9, 32e9, (8, 9)),
    "a100": Accelerator(
        "NVIDIA A100-SXM4-80GB", "cuda", 85100068864, 312e12, 2039e9, 300e9, (8, 0)
    ),
    "h100": Accelerator(
        "NVIDIA H100 80GB HBM3", "cuda", 84942979072, 989e12, 3352e9, 450e9, (9, 0)
    ),
    "h200": Accelerator("NVIDIA H200", "cuda", 151397597184, 989e12, 4800e9, 450e9, (9, 0)),
    "b200": Accelerator("NVIDIA B200", "cuda", 191514411008, 2250e12, 7672e9, 900e9, (10, 0)),
}


class Built(NamedTuple):
    """The target of a program: platform (cpu | cuda | rocm | tpu), device kind, and the compute
    capability of a CUDA device if it is known.
    """

    platform: str
    kind: str
    capability: tuple[int, int] | None


def built_for() -> Built:
    """The device that programs traced now will run on: that of the mesh in scope (`jax.set_mesh`),
    which need not be attached, or else this process's own.
    """
    local, mesh = jax.local_devices()[0], jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    if device is None or device.device_kind == local.device_kind:
        return Built(platform_of(local), local.device_kind, _capability(local))
    known = next((a for a in ACCELERATORS.values() if a.kind == device.device_kind), None)
    if known:
        return Built(known.platform, known.kind, known.capability)
    platform = "cuda" if device.platform == "gpu" else device.platform
    return Built(platform, device.device_kind, None)


def platform() -> str:
    """cpu | cuda | rocm | tpu: the platform that programs traced now will run on."""
    return built_for().platform


def known(kind: str) -> Accelerator | None:
    """The accelerator of a `device_kind`, or None."""
    return next((a for a in ACCELERATORS.values() if kind.startswith(a.kind)), None)


def platform_of(device: Any) -> str:
    """cpu | cuda | rocm | tpu; JAX itself calls both kinds of GPU "gpu"."""
    if device.platform != "gpu":
        return device.platform
    return "rocm" if "rocm" in device.client.platform_version.lower() else "cuda"


def _capability(device: Any) -> tuple[int, int] | None:
    capability = getattr(device, "compute_capability", None)
    if capability is None:
        return None
    major, _, minor = str(capability).partition(".")
    return int(major), int(minor or 0)
