"""BCO: binary classifier optimization, on pairs.

Jung et al. 2024, "Binary Classifier Optimization for Large Language Model Alignment".
https://arxiv.org/abs/2404.04656.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._running import Axis, ema, mean_where, total


def bco_terms(
    chosen_rewards: Float[Array, "B"],
    rejected_rewards: Float[Array, "B"],
    delta: Float[Array, ""],
) -> Float[Array, "B"]:
    """-log sigmoid(r_w - delta) - log sigmoid(-(r_l - delta)): both halves of a pair.

    With delta = 0 this is `bco_pair` of TRL 1.16, which has no reward shift.

    Args:
      chosen_rewards, rejected_rewards: beta * summed log-ratio.
      delta: the reward shift, in the same unit.
    Returns:
      The unreduced loss.
    >>> import jax.numpy as jnp
    >>> round(float(bco_terms(jnp.array([0.5]), jnp.array([-0.5]), jnp.array(0.0))[0]), 4)
    0.9482
    """
    return -jax.nn.log_sigmoid(chosen_rewards - delta) - jax.nn.log_sigmoid(
        delta - rejected_rewards
    )


def bco_pair(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    present: Bool[Array, "B"],
    delta: Float[Array, ""],
    *,
    beta: float = 0.1,
    momentum: float = 0.9,
    axis_name: Axis = None,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(r_w - delta) - log sigmoid(-(r_l - delta)), with r = beta * log-ratio.

    Log-ratios are SUMMED over tokens. A classifier labels each response alone as chosen or
    rejected. delta, the reward shift, is a running mean without gradient of half the sum of the
    mean chosen and the mean rejected reward, this batch included. The loss of a pair so depends on
    the others: compute it on the global batch.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      present: where there is a pair at all.
      delta: the shift after the previous step, in reward units; NaN before the first.
      beta: scale of the implicit reward, > 0; 0.1, the paper's runs on pairs 0.01.
      momentum: of delta, in [0, 1]; 1 keeps it as it comes in.
      axis_name: inside `jax.shard_map`, the mesh axis or axes that the batch is split over.
    Returns:
      The unreduced loss, `chosen_rewards`, `rejected_rewards` (r), and the new `delta` at every
      pair.
    Raises:
      ValueError: a number out of its range.
    Deviations: TRL's BCO trainer takes the cumulative mean of all rewards, without decay, as did
      `bco_pair` of TRL 0.11; that of TRL 1.16 has no shift at all (`bco_terms` with delta = 0).
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.5, -5.0, -8.0)]
    >>> loss, metrics = bco_pair(*x, jnp.array([True]), jnp.array(jnp.nan), beta=0.5)
    >>> float(metrics["delta"][0]), round(float(loss[0]), 4)
    (-0.125, 0.8574)
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require((momentum >= 0) & (momentum <= 1), f"momentum must be in [0, 1], got {momentum}")
    chosen, rejected, ref_chosen, ref_rejected, old = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, delta
    )
    # empty slots may hold NaN, and a batch statistic would spread it to every pair
    chosen_rewards = beta * jnp.where(present, chosen - ref_chosen, 0.0)
    rejected_rewards = beta * jnp.where(present, rejected - ref_rejected, 0.0)
    # a constant of this step that is averaged over steps
    both = jax.lax.stop_gradient(chosen_rewards + rejected_rewards)
    middle = 0.5 * mean_where(both, present, axis_name)
    shift = ema(old, middle, total(present, axis_name) > 0, momentum)
    return bco_terms(chosen_rewards, rejected_rewards, shift), {
        "chosen_rewards": chosen_rewards,
        "rejected_rewards": rejected_rewards,
        "delta": jnp.broadcast_to(shift, chosen_rewards.shape),
    }
