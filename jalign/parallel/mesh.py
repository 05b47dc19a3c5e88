"""The device mesh: five axes (`jalign.parallel.axes`) whose product is the number of devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jalign.parallel.axes import BATCH_AXES, CONTEXT, DATA, EXPERT, FSDP, MESH_AXES, TENSOR

if TYPE_CHECKING:
    from jax._src.lib import Device  # jax.Device is a variable, which annotations may not name


def make_mesh(
    data: int = 1,
    fsdp: int = 1,
    tensor: int = 1,
    context: int = 1,
    expert: int = 1,
    *,
    devices: Sequence[Device] | None = None,
) -> Mesh:
    """A mesh with the axes `MESH_AXES` over all devices.

    Args:
      data, fsdp, tensor, context, expert: sizes; at most one may be -1, which takes the remaining
        devices.
      devices: None uses all of `jax.devices()`.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {DATA: data, FSDP: fsdp, EXPERT: expert, CONTEXT: context, TENSOR: tensor}
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
    types = (AxisType.Auto,) * len(MESH_AXES)
    return Mesh(_arranged(sizes, devices), MESH_AXES, axis_types=types)


def batch_shards(mesh: Mesh) -> int:
    """The number of shards into which the mesh splits a batch; the streams of a micro-batch are a
    multiple of it.
    """
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def _slices(devices: Sequence[Device]) -> int:
    """The number of TPU slices, which are connected by the data center network only."""
    return len({getattr(d, "slice_index", None) for d in devices if d.platform == "tpu"})


def _arranged(sizes: dict[str, int], devices: Sequence[Device]) -> np.ndarray:
    """A device array in which neighbors on an axis are near, and only `data` crosses slices."""
    from jax.experimental import mesh_utils

    # Without split axes a mesh such as (1, 8, 2) on a 4 x 4 slice raises NotImplementedError.
    slices = _slices(devices)
    if slices < 2:
        shape = tuple(sizes.values())
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    if sizes[DATA] % slices:
        raise ValueError(
            f"{slices} slices hold copies of the model: data must be a multiple of {slices}, "
            f"got {sizes['data']}"
        )
    within = (sizes[DATA] // slices, *list(sizes.values())[1:])
    between = (slices, *[1] * (len(sizes) - 1))
    return mesh_utils.create_hybrid_device_mesh(
        within, between, devices=devices, allow_split_physical_axes=True
    )
