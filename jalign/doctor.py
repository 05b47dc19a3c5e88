"""What this machine computes on, with which kernels, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp

from jalign.kernels.backend import choose_attention
from jalign.kernels.devices import GIB, known, platform_of

PACKAGES = (
    "jalign", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "transformers",
    "datasets",
)  # fmt: skip
OPTIONAL = {
    "libtpu": "TPUs, and jalign plan for them: pip install jalign[tpu]",
    "jax-cuda13-plugin": "NVIDIA cards, and jalign plan for them: pip install jalign[cuda]",
    "openai": "judges behind a server: pip install jalign[judge]",
}
FLAGS = ("XLA_", "JAX_", "LIBTPU_", "NCCL_", "TF_GPU_", "CUDA_VISIBLE", "JALIGN_")
HEAD_DIMS = (64, 128, 256)


def report() -> list[str]:
    """The lines of the report, each a name and a fact."""
    return [*_devices(), *_host(), *_kernels(), *_flags(), *_versions()]


def facts(lines: Sequence[str]) -> dict[str, list[str]]:
    """Lines of a report as name -> facts."""
    result: dict[str, list[str]] = {}
    for line in lines:
        name, _, fact = line.partition(" ")
        result.setdefault(name, []).append(fact.strip())
    return result


def _devices() -> list[str]:
    device = jax.local_devices()[0]
    kind = platform_of(device)
    card, stats = known(device.device_kind), device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    memory = f"{limit / GIB:.1f} GiB for programs" if limit else "that of the host"
    if limit and card and limit < 0.85 * card.memory:
        memory += (
            f" of {card.memory / GIB:.1f}: XLA_PYTHON_CLIENT_MEM_FRACTION (0.75 when unset) sets "
            "the share"
        )
    peak = "not known to jalign"
    if card:
        peak = f"{card.flops / 1e12:.0f} TFLOP/s in bfloat16, {card.bandwidth / 1e9:.0f} GB/s"
    return [
        f"devices    {jax.device_count()} x {device.device_kind} ({kind}), "
        f"{jax.local_device_count()} in this process of {jax.process_count()}",
        f"runtime    {' '.join(device.client.platform_version.split())}",
        f"memory     {memory}",
        f"peak       {peak}",
    ]


def _host() -> list[str]:
    """Cores, memory and disk of this machine; memory where /proc has it."""
    free = shutil.disk_usage(Path.cwd()).free / GIB
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    if Path("/proc/meminfo").is_file():
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        total, left = kib["MemTotal"] / 2**20, kib["MemAvailable"] / 2**20
        memory = f", {left:.1f} of {total:.1f} GiB of memory available"
    return [f"host       {cores} cores{memory}, {free:.1f} GiB free on the disk of this folder"]


def _kernels() -> list[str]:
    device = jax.local_devices()[0]
    kind, lines = platform_of(device), []
    dtype = jnp.float32 if kind == "cpu" else jnp.bfloat16
    for width in HEAD_DIMS:
        name, why = choose_attention(
            kind,
            dtype,
            width,
            compute_capability=getattr(device, "compute_capability", None),
            device_kind=device.device_kind,
        )
        lines.append(f"attention  heads of {width}: {name}: {why}")
    return lines


def _flags() -> list[str]:
    flags = [f"{n}={x}" for n, x in sorted(os.environ.items()) if n.startswith(FLAGS)]
    cache = getattr(jax.config, "jax_compilation_cache_dir", None)
    return [
        f"flags      {'; '.join(_without_secrets(flags)) or 'none set'}",
        f"cache      compiled programs in {cache}" if cache else "cache      none",
    ]


def _without_secrets(flags: Sequence[str]) -> list[str]:
    return [f"{f.partition('=')[0]}=(set)" if "KEY" in f.partition("=")[0] else f for f in flags]


def _versions() -> list[str]:
    lines = [f"versions   python {platform.python_version()}"]
    lines[0] += "".join(f", {name} {_version(name) or 'MISSING'}" for name in PACKAGES)
    for name, what in OPTIONAL.items():
        version = _version(name)
        lines.append(f"extra      {name} {version}" if version else f"missing    {name}: {what}")
    return lines


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
