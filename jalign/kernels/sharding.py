"""Run a kernel on each device's own rows and heads.

Hand-written kernels and loops over the batch cannot be split by the compiler (a Mosaic kernel is
refused, a loop over a sharded axis is gathered), but attention needs nothing from other rows or
heads. So where a mesh is in scope (`jax.set_mesh`), the rows are split over its batch axes and the
heads over its other axes by `shard_map`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from jax import Array
from jax.sharding import AxisType, PartitionSpec

from jalign.parallel.axes import BATCH_AXES, HEAD_AXES


def shard_over_rows_and_heads(
    attend: Callable[[Array, Array, Array], Array], q: Array, k: Array, v: Array
) -> Array:
    """`attend(q, k, v)` ([B, T, heads, C] each) with B and the heads split over the mesh in scope,
    where they divide evenly.

    What does not divide evenly is computed on every device alike.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {
        name: size
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        # Manual axes belong to a caller's own shard_map, which has split them already.
        if kind != AxisType.Manual
    }
    if math.prod(free.values()) == 1:
        return attend(q, k, v)
    batch = tuple(a for a in BATCH_AXES if a in free)
    if q.shape[0] % math.prod(free[a] for a in batch):
        batch = ()
    heads = tuple(a for a in HEAD_AXES if a in free)
    # Key/value heads decide: there are fewer of them, and each needs its query heads beside it.
    if k.shape[2] % math.prod(free[a] for a in heads):
        heads = ()
    spec = PartitionSpec(batch or None, None, heads or None)
    split = jax.shard_map(attend, in_specs=(spec, spec, spec), out_specs=spec, check_vma=False)
    return split(q, k, v)
