"""What XLA is told about the programs of a step: rounding on CPU, on-chip memory on TPUs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jalign.kernels import devices

SCOPED_VMEM_KIB = {"TPU v6 lite": 98304, "TPU v5": 32768}
"""By device kind: on-chip memory that one operation may use. With XLA's default the products of an
8B step run at 0.61 to 0.89 of a v6e's peak and at 0.84 to 0.95 of a v5p's, by the compiler's own
estimate; a v5e's are at 0.92 to 0.97 as they are (`jalign/plan/README.md`). With 48 MiB on a v5p
steps are 1 % shorter, and JAX 0.10's compiler aborts on a mixture at little effort."""

WHOLE_PRODUCTS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
"""For v6e: no collective matmuls, which cut a product into one per device, too small for this
matrix unit; as MaxText sets it (`jalign/plan/README.md`). Not measured on other generations."""

SPARSE_CORES = {
    **{
        f"xla_tpu_enable_sparse_core_collective_offload_{kind}": "true"
        for kind in ("all_gather", "reduce_scatter", "all_reduce")
    },
    "xla_tpu_use_tc_device_shape_on_sc": "true",
}
"""For v6e: collectives run on the sparse cores, beside products; as MaxText sets it. A step of full
8B DPO on 16 chips takes 1.30 instead of 1.63 s by the compiler's cycles
(`jalign/plan/README.md`). The other way to overlap them, fusion with products, is for v5e alone.
Only on meshes of one axis of at least 4, of which 4 to 64 chips compile: with experts over 8 and
`fsdp` over 2 chips the compiler of JAX 0.10 aborts the process."""


def compiler_options(dtype: DTypeLike) -> dict[str, bool | str]:
    """`compiler_options` of `jax.jit` for training steps and for programs that score.

    On CPU in 16 bits: XLA may keep excess precision between fused operations. Differentiated
    programs are fused differently, so at step 0 the policy differs by up to about 0.1 nat per
    response from an equal reference. With these options every operation rounds as written: with
    plain attention (`xla`) both are then equal; with `blocked`, whose differentiated pass is
    separate code, a mean log-ratio of 0.003 nat remained. On accelerators the cost of this has not
    been measured, and the difference remains.

    On TPUs: `SCOPED_VMEM_KIB`, `WHOLE_PRODUCTS` and `SPARSE_CORES`.

    Args:
      dtype: of the computation.
    """
    device = devices.built_for()
    if device.platform == "cpu" and jnp.dtype(dtype).itemsize <= 2:
        return {"xla_allow_excess_precision": False}
    if device.kind not in SCOPED_VMEM_KIB:
        return {}
    memory = {"xla_tpu_scoped_vmem_limit_kib": str(SCOPED_VMEM_KIB[device.kind])}
    if device.kind != "TPU v6 lite":
        return memory
    return memory | WHOLE_PRODUCTS | (SPARSE_CORES if _has_one_axis() else {})


def _has_one_axis() -> bool:
    """Whether the mesh in scope splits over one axis alone, of at least 4 devices."""
    sizes = [size for size in jax.sharding.get_abstract_mesh().axis_sizes if size > 1]
    return len(sizes) == 1 and sizes[0] >= 4
