"""AOT: alignment via optimal transport, for paired and for unpaired responses.

Melnyk et al. 2024, "Distributional Preference Alignment of LLMs via Optimal Transport".
https://arxiv.org/abs/2406.05882. Where DPO compares a pair with itself, AOT compares quantiles: the
i-th smallest of one sample with the i-th smallest of the other, the optimal transport in one
dimension, so that chosen dominates rejected in distribution.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._running import Axis, of_all_devices, of_this_device

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def aot(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    present: Bool[Array, "B"],
    *,
    beta: float = 0.01,
    label_smoothing: float = 0.0,
    axis_name: Axis = None,
) -> Out:
    """-(1 - e) log sigmoid(h) - e log sigmoid(-h), with h_j = beta * (u_j - v of equal rank).

    u = log p(chosen) - log p(rejected) under the policy, v the same under the reference, both
    SUMMED over tokens: the policy's margins should dominate the reference's ("paired" AOT). The
    value belongs to the pair of u_j. It depends on the other pairs: compute it on the global
    batch, and a large one.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      present: where there is a pair at all; the others are ranked behind all of them.
      beta: > 0; 0.01 in the paper.
      label_smoothing: e, the probability that a label is flipped, in [0, 0.5).
      axis_name: inside `jax.shard_map`, the mesh axis or axes that the batch is split over.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: a number out of its range.
    Deviations: TRL 0.11 called this "aot" and the unpaired form "aot_pair"; TRL 1.16 has the names
      used here. They sort the pairs of one device, this sorts what it is given.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array(v) for v in ([-4.0, -7.0], [-9.0, -6.0], [-5.0, -7.5], [-7.0, -10.0])]
    >>> [round(float(v), 4) for v in aot(*x, jnp.ones(2, bool), beta=0.5)[0]]
    [0.2519, 1.7014]
    """
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    # ratios within one model: here the policy's margins are compared with the reference's
    u, v = chosen - rejected, ref_chosen - ref_rejected
    loss = _by_rank(u, v, present, beta, label_smoothing, axis_name)
    return loss, _rewards(chosen - ref_chosen, rejected - ref_rejected, beta)


def aot_unpaired(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    present: Bool[Array, "B"],
    *,
    beta: float = 0.01,
    label_smoothing: float = 0.0,
    axis_name: Axis = None,
) -> Out:
    """As `aot`, with u the log-ratios of the chosen responses and v those of the rejected ones.

    The distribution of chosen rewards should dominate that of rejected rewards; which rejected
    response is paired with which chosen one does not matter. Gradients flow through both sorted
    samples.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      present: where there is a pair at all; the others are ranked behind all of them.
      beta, label_smoothing: as in `aot`.
      axis_name: inside `jax.shard_map`, the mesh axis or axes that the batch is split over.
    Returns:
      The unreduced loss, at the slot of its chosen response, and `chosen_rewards`,
      `rejected_rewards` (beta * log-ratio).
    Raises:
      ValueError: a number out of its range.
    Deviations: see `aot` for the names.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array(v) for v in ([-4.0, -7.0], [-9.0, -6.0], [-5.0, -7.5], [-7.0, -10.0])]
    >>> [round(float(v), 4) for v in aot_unpaired(*x, jnp.ones(2, bool), beta=0.5)[0]]
    [1.7014, 0.2519]
    """
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    u, v = chosen - ref_chosen, rejected - ref_rejected
    loss = _by_rank(u, v, present, beta, label_smoothing, axis_name)
    return loss, _rewards(u, v, beta)


def _by_rank(
    u: Array, v: Array, present: Array, beta: float, label_smoothing: float, axis_name: Axis
) -> Array:
    """The smoothed logistic loss of each u against the v of the same rank."""
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(
        (label_smoothing >= 0) & (label_smoothing < 0.5),
        f"label_smoothing must be in [0, 0.5), got {label_smoothing}",
    )
    # empty slots may hold NaN, and NaN times a gradient of 0 is NaN
    own = jnp.where(present, u, 0.0), jnp.where(present, v, 0.0), present
    # ranks are those of the global batch: sorted per device, the loss would depend on the mesh
    u, v, present = (of_all_devices(x, axis_name) for x in own)
    # empty slots sort last on both sides, so they are partners of each other only
    rank = jnp.argsort(jnp.argsort(jnp.where(present, u, jnp.inf)))
    partner = v[jnp.argsort(jnp.where(present, v, jnp.inf))][rank]
    # each device returns its own pairs: returning all would count a pair once per device
    h = of_this_device(beta * (u - partner), axis_name)
    return -(1 - label_smoothing) * jax.nn.log_sigmoid(h) - label_smoothing * jax.nn.log_sigmoid(-h)


def _rewards(chosen_ratio: Array, rejected_ratio: Array, beta: float) -> dict[str, Array]:
    return {"chosen_rewards": beta * chosen_ratio, "rejected_rewards": beta * rejected_ratio}
