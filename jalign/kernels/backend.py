"""Select the attention kernel for a device, and report devices, kernel and reason.

The choice depends only on the arguments, so that it also works for hardware that is not attached.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jalign.kernels.attention import IMPLEMENTATIONS
from jalign.kernels.devices import platform_of

Capability = tuple[int, int]


def choose_attention(
    platform: str,
    dtype: DTypeLike,
    head_dim: int,
    softcap: float | None = None,
    window: int | None = None,
    sinks: bool = False,
    *,
    compute_capability: str | Capability | None = None,
    device_kind: str = "",
    requested: str | None = None,
) -> tuple[str, str]:
    """The attention implementation for a device, and the reason in words.

    cudnn on CUDA where data type, head dim, soft cap and sinks allow it, splash on TPU (any head
    dim: narrower ones fill a part of the 128 lanes), blocked on CPU, xla otherwise.

    Args:
      platform: cpu | cuda | rocm | tpu ("gpu" is taken for cuda).
      dtype: what attention computes in.
      window: has no effect, since every implementation supports windows.
      sinks: whether the model has attention sinks.
      compute_capability: of a CUDA device, "9.0" or (9, 0); None is unknown, and cuDNN's wider
        limits are assumed.
      device_kind: the device's name, for the reason only.
      requested: an implementation selected by name.

    Raises:
      ValueError: when `requested` is unknown or cannot run there.
    """
    capability = _capability(compute_capability)
    facts = (platform, jnp.dtype(dtype), head_dim, softcap, sinks, capability)
    where = f"on {device_kind or platform}"
    if requested is not None:
        if requested not in IMPLEMENTATIONS:
            known = ", ".join(IMPLEMENTATIONS)
            raise ValueError(
                f"attention implementation {requested!r} is unknown; there is: {known}"
            )
        obstacle = _obstacle(requested, *facts)
        if obstacle:
            options = {"sinks": sinks, "compute_capability": compute_capability}
            best, _ = choose_attention(platform, dtype, head_dim, softcap, window, **options)
            raise ValueError(f"{requested} attention cannot run {where}: {obstacle}; {best} can")
        return requested, "asked for by name"
    # Gradient of 16 rows of 1,024 tokens on a v5p: 3.07 GiB with XLA's attention, 0.81 with splash.
    if platform == "tpu":
        return "splash", f"a TPU kernel that keeps no [T, T] scores, {where}"
    if platform == "cpu":
        return "blocked", f"causal blocks that skip what is masked, {where}"
    if platform in ("cuda", "gpu"):
        obstacle = _obstacle("cudnn", *facts)
        if obstacle is None:
            return "cudnn", f"cuDNN's fused attention, {where}"
        return "xla", f"cuDNN's attention cannot be used {where}: {obstacle}"
    return "xla", f"no faster kernel is known {where}"


def describe(
    *,
    dtype: DTypeLike,
    head_dim: int,
    softcap: float | None = None,
    window: int | None = None,
    sinks: bool = False,
    requested: str | None = None,
) -> list[str]:
    """Lines that describe the hardware of this process: devices, memory per device, and the
    attention kernel with its reason.
    """
    device = jax.local_devices()[0]
    name, reason = choose_attention(
        platform_of(device),
        dtype,
        head_dim,
        softcap,
        window,
        sinks,
        compute_capability=getattr(device, "compute_capability", None),
        device_kind=device.device_kind,
        requested=requested,
    )
    memory = (device.memory_stats() or {}).get("bytes_limit")
    return [
        f"devices     {jax.device_count()} x {device.device_kind} ({platform_of(device)}), "
        f"{jax.local_device_count()} in this process",
        f"memory      {f'{memory / 2**30:.1f} GiB per device' if memory else 'of the host'}",
        f"attention   {name}: {reason}",
        f"compute     {jnp.dtype(dtype).name}, softmax and log-probabilities in float32",
        f"jax         {jax.__version__}",
    ]


def _obstacle(
    name: str,
    platform: str,
    dtype: DTypeLike,
    head_dim: int,
    softcap: float | None,
    sinks: bool,
    capability: Capability | None,
) -> str | None:
    """Why an implementation cannot run on such a device, or None."""
    if name == "splash" and platform != "tpu":
        return f"it is a TPU kernel, and this is {platform}"
    if name != "cudnn":
        return None
    if platform not in ("cuda", "gpu"):
        return f"it needs CUDA, and this is {platform}"
    if capability is not None and capability < (8, 0):
        return f"it needs compute capability 8.0, and this is {capability[0]}.{capability[1]}"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in bfloat16 or float16, not {jnp.dtype(dtype).name}"
    # JAX checks this against the local device, which is not the one of a plan.
    widest = 256 if capability is None or capability >= (9, 0) else 128
    if head_dim % 8 or head_dim > widest:
        return f"its head dim is a multiple of 8 up to {widest}, and this model's is {head_dim}"
    if softcap is not None:
        return f"it has no soft cap, and this model caps its attention logits at {softcap}"
    if sinks:
        return "it has no attention sinks, and this model has"
    return None


def _capability(given: str | Capability | None) -> Capability | None:
    if given is None or isinstance(given, tuple):
        return given
    major, _, minor = given.partition(".")
    return int(major), int(minor or 0)
