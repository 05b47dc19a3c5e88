"""Descriptions of NVIDIA cards for XLA's compiler (GpuTargetConfigProto, text format)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from jalign.kernels.devices import ACCELERATORS, Accelerator


class _Chip(NamedTuple):
    """Properties of a chip; sizes in bytes."""

    multiprocessors: int
    units: int  # float32, per multiprocessor
    threads: int  # per multiprocessor
    shared: int  # per multiprocessor
    shared_per_block: int  # maximum, opt-in
    l2: int
    clock_ghz: float


# as XLA's own target_config/specs; it has none of the L4
_CHIPS = {
    "l4": _Chip(58, 128, 1536, 102400, 101376, 50331648, 2.04),
    "a100": _Chip(108, 64, 2048, 167936, 166912, 41943040, 1.41),
    "h100": _Chip(132, 128, 2048, 233472, 232448, 52428800, 1.98),
    "h200": _Chip(132, 128, 2048, 233472, 232448, 52428800, 1.98),
    "b200": _Chip(148, 128, 2048, 233472, 232448, 132644864, 1.965),
}
_CUDA, _CUDNN = (13, 0, 0), (9, 27, 0)

_TEXT = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {chip.shared}
  shared_memory_per_block_optin: {chip.shared_per_block}
  threads_per_core_limit: {chip.threads}
  core_count: {chip.multiprocessors}
  fpus_per_core: {chip.units}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  memory_bandwidth: {bandwidth}
  device_memory_size: {memory}
  l2_cache_size: {chip.l2}
  clock_rate_ghz: {chip.clock_ghz}
  cuda_compute_capability {{ major: {major} minor: {minor} {features} }}
  driver_version: "{cuda}"
  runtime_version: "{cuda}"
  compile_time_toolkit_version: "{cuda}"
  dnn_version: "{cudnn}"
}}
platform_name: "CUDA"
dnn_version_info {{ major: {_CUDNN[0]} minor: {_CUDNN[1]} patch: {_CUDNN[2]} }}
runtime_version {{ major: {_CUDA[0]} }}
device_description_str: "{card.kind}"
"""


def gpu_config(card: Accelerator) -> str:
    """The description of a card of `ACCELERATORS`."""
    name = next(name for name, a in ACCELERATORS.items() if a == card)
    assert card.capability is not None
    major, minor = card.capability
    return _TEXT.format(
        chip=_CHIPS[name],
        card=card,
        bandwidth=int(card.bandwidth),
        memory=int(card.memory),
        major=major,
        minor=minor,
        # from Hopper on, some instructions exist in one generation only
        features="feature_extension: ACCELERATED_FEATURES" if major >= 9 else "",
        cuda=".".join(map(str, _CUDA)),
        cudnn=".".join(map(str, _CUDNN)),
        _CUDA=_CUDA,
        _CUDNN=_CUDNN,
    )


@contextmanager
def in_place_of_the_card_here(card: Accelerator) -> Iterator[None]:
    """Make JAX check cuDNN's attention against `card` instead of the local device.

    JAX asks the local device, not the compilation target, e.g. whether heads may be wider than 128
    (Hopper only). Two private functions of JAX are replaced within the context.
    """
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    if card.capability is None:
        yield
        return
    there = card.capability

    def parsed(capability: str) -> tuple[int, ...]:
        return tuple(map(int, capability.split(".")))

    answers = {
        "check_compute_capability": lambda least: there >= parsed(least),
        "is_cuda_compute_capability_equal": lambda other: there == parsed(other),
    }
    before = {name: getattr(cudnn, name) for name in answers}
    # module attributes, because the callers look them up at each trace
    for name, answer in answers.items():
        setattr(cudnn, name, answer)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(cudnn, name, function)
