"""The device mesh: four axes whose product is the number of devices.

`data` repeats the model, `fsdp` splits parameters and batch, `context` splits parameters and the
tokens of each stream, for rows that are too long for one device, `tensor` splits each layer's
matrices and heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

AXES = ("data", "fsdp", "context", "tensor")


def make_mesh(
    data: int = 1,
    fsdp: int = 1,
    tensor: int = 1,
    context: int = 1,
    *,
    devices: Sequence[Any] | None = None,
) -> Mesh:
    """A mesh with the axes `AXES` over all devices.

    Args:
      data, fsdp, tensor, context: sizes; at most one may be -1, which takes the devices the others
        leave.
      devices: None is all of `jax.devices()`.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "context": context, "tensor": tensor}
    given = ", ".join(f"{name}={size}" for name, size in sizes.items())
    if any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes are at least 1, or -1 for what is left; got {given}")
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ValueError(f"only one mesh axis may be -1; got {given}")
    fixed = math.prod(size for size in sizes.values() if size != -1)
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if math.prod(sizes.values()) != len(devices):
        raise ValueError(f"a mesh of {given} does not fit {len(devices)} devices")
    types = (AxisType.Auto,) * len(AXES)
    slices = _slices(devices)
    if slices > 1:
        return Mesh(_over_slices(sizes, slices, devices), AXES, axis_types=types)
    return jax.make_mesh(tuple(sizes.values()), AXES, types, devices=devices)


def _slices(devices: Sequence[Any]) -> int:
    """TPU slices, which only a data centre network joins."""
    return len({getattr(d, "slice_index", None) for d in devices if d.platform == "tpu"})


def _over_slices(sizes: dict[str, int], slices: int, devices: Sequence[Any]) -> Any:
    """Devices such that only copies of the model talk between slices."""
    from jax.experimental import mesh_utils

    if sizes["data"] % slices:
        raise ValueError(
            f"{slices} slices hold copies of the model: data must be a multiple of {slices}, "
            f"got {sizes['data']}"
        )
    within = (sizes["data"] // slices, *list(sizes.values())[1:])
    between = (slices, *[1] * (len(sizes) - 1))
    return mesh_utils.create_hybrid_device_mesh(
        within, between, devices=devices, allow_split_physical_axes=True
    )
