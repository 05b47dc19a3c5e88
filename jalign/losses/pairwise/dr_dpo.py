"""Dr. DPO: distributionally robust DPO, in which pairs of a high loss count less.

Wu et al. 2024, "Towards Robust Alignment of Language Models: Distributionally Robustifying Direct
Preference Optimization". https://arxiv.org/abs/2407.07880, Eq. 12.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._running import Axis, of_all_devices
from jalign.losses.pairwise.dpo import dpo


def dr_dpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    present: Bool[Array, "B"],
    *,
    beta: float = 0.1,
    beta_prime: float = 1.0,
    label_smoothing: float = 0.0,
    axis_name: Axis = None,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-beta' * log mean_i exp(-l_i / beta') over the batch, with l_i the loss of `dpo`.

    The gradient is that of DPO with pair i weighted by exp(-l_i / beta'), normalized over the batch
    to a mean of 1. The loss of a pair so depends on the others: compute it on the global batch.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      present: where there is a pair at all.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      beta_prime: trust in the labels, > 0, in units of the loss; 1. Large values give DPO.
      label_smoothing: as in `dpo`; 0.
      axis_name: inside `jax.shard_map`, the mesh axis or axes that the batch is split over.
    Returns:
      The loss of the batch at every pair, `chosen_rewards`, `rejected_rewards` (beta * log-ratio),
      and the `pair_weight` of each, whose mean is 1.
    Raises:
      ValueError: a number out of its range.
    Deviations: the authors' code takes the mean of each device; here it is one of the global batch.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array(v) for v in ([-4.0, -7.0], [-9.0, -6.0], [-5.0, -7.5], [-8.0, -6.5])]
    >>> loss, metrics = dr_dpo(*x, jnp.ones(2, bool), beta=0.5)
    >>> [round(float(v), 4) for v in loss], [round(float(v), 4) for v in metrics["pair_weight"]]
    ([0.4853, 0.4853], [1.1877, 0.8123])
    """
    require(beta_prime > 0, f"beta_prime must be > 0, got {beta_prime}")
    logps = chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    losses, metrics = dpo(*logps, beta=beta, label_smoothing=label_smoothing)
    # empty slots may hold NaN, and a sum over the batch would spread it
    scaled = jnp.where(present, -losses / beta_prime, -jnp.inf)
    everywhere = of_all_devices(scaled, axis_name)
    count = jnp.maximum(of_all_devices(present, axis_name).sum(), 1)
    log_mean = jax.nn.logsumexp(everywhere) - jnp.log(count)
    weight = jnp.where(present, jnp.exp(scaled - log_mean), 0.0)
    metrics = metrics | {"pair_weight": jax.lax.stop_gradient(weight)}
    # the value of the batch at every pair, each with its own share of the gradient: only so does
    # a mean by `weight` count pairs
    share = jnp.where(present, jax.lax.stop_gradient(weight) * losses, 0.0)
    return jax.lax.stop_gradient(-beta_prime * log_mean - share) + share, metrics
