"""Run a kernel on each device's own rows and heads.

The compiler cannot partition hand-written kernels (it refuses Mosaic) or loops over the batch (it
gathers the sharded axis), but attention is independent across rows and heads. So with a mesh in
scope (`jax.set_mesh`), `shard_map` splits the rows over its batch axes and the heads over its other
axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
from jax import Array
from jax.sharding import AxisType, PartitionSpec

from jalign.parallel.axes import BATCH_AXES, HEAD_AXES


def shard_over_rows_and_heads(
    attend: Callable[..., Array], q: Array, k: Array, v: Array, sinks: Array | None
) -> Array:
    """`attend(q, k, v, sinks)` ([B, T, heads, C] each, and [heads] or None) with B and the heads
    split over the mesh in scope, where they divide evenly.

    An axis that does not divide evenly is replicated.
    """
    mesh = jax.sharding.get_abstract_mesh()
    free = {
        name: size
        for name, size, kind in zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
        # Manual axes belong to a caller's own shard_map, which has split them already.
        if kind != AxisType.Manual
    }
    if math.prod(free.values()) == 1:
        return attend(q, k, v, sinks)
    batch = tuple(a for a in BATCH_AXES if a in free)
    if q.shape[0] % math.prod(free[a] for a in batch):
        batch = ()
    heads = tuple(a for a in HEAD_AXES if a in free)
    # Key/value heads decide: there are fewer of them, and each needs its query heads beside it.
    if k.shape[2] % math.prod(free[a] for a in heads):
        heads = ()
    spec = PartitionSpec(batch or None, None, heads or None)
    in_specs = (spec, spec, spec, PartitionSpec(heads or None))
    split = jax.shard_map(attend, in_specs=in_specs, out_specs=spec, check_vma=False)
    return split(q, k, v, sinks)
