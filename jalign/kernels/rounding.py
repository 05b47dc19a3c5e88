"""Rounding of 16-bit values that does not depend on how XLA fuses a program."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import DTypeLike

from jalign.kernels import devices


def same_rounding(dtype: DTypeLike) -> dict[str, bool]:
    """`compiler_options` of `jax.jit` for programs that compare log-probs of equal weights.

    XLA may keep excess precision between fused 16-bit operations. Differentiated programs are fused
    differently, so at step 0 the policy differs by up to about 0.1 nat per response from an equal
    reference. With these options every operation rounds as written: with plain attention (`xla`)
    both are then equal; with `blocked`, whose differentiated pass is separate code, a mean
    log-ratio of 0.003 nat remained.

    No options in float32, nor on accelerators, where their cost has not been measured and the
    difference remains.

    Args:
      dtype: of the computation.
    """
    if jnp.dtype(dtype).itemsize > 2 or devices.platform() != "cpu":
        return {}
    return {"xla_allow_excess_precision": False}
