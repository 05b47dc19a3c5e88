"""KTO: Kahneman-Tversky optimization from single responses labeled desirable or not.

Ethayarajh et al. 2024. https://arxiv.org/abs/2402.01306, Eq. 8.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._running import Axis, mean_where


def kto(
    logps: Float[Array, "B"],
    ref_logps: Float[Array, "B"],
    kl_logps: Float[Array, "B"],
    ref_kl_logps: Float[Array, "B"],
    kl_present: Bool[Array, "B"],
    present: Bool[Array, "B"],
    label: Bool[Array, "B"] | Float[Array, "B"],
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    axis_name: Axis = None,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """w * (1 - sigmoid(beta * (r - z0))) if desirable, w * (1 - sigmoid(beta * (z0 - r))) if not.

    r is the summed log-ratio of the response; z0 = max(0, mean log-ratio of MISMATCHED responses),
    one number for the whole batch without gradient. The loss of an example so depends on the
    others: compute it on the global batch.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      kl_logps, ref_kl_logps: the same for a response that belongs to another prompt.
      kl_present: where such a mismatched response exists.
      present: where there is an example at all.
      label: True (or 1, as the data hold it) where the response is desirable.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      desirable_weight, undesirable_weight: lambda_D, lambda_U, >= 0; keep
        lambda_D * n_D / (lambda_U * n_U) in [1, 4/3].
      axis_name: inside `jax.shard_map`, the mesh axis or axes that the batch is split over.
    Returns:
      The unreduced loss, `rewards` (beta * r) and `kl` (z0 at every example).
    Raises:
      ValueError: a number out of its range.
    Deviations: as HALOs, z0 is the mean over the examples of the global batch that have a
      mismatched response (TRL averages rank means).
    >>> import jax.numpy as jnp
    >>> a, yes = (lambda v: jnp.array([v])), jnp.array([True])
    >>> loss, _ = kto(a(-4.0), a(-5.0), a(-6.0), a(-6.5), yes, yes, yes, beta=0.5)
    >>> round(float(loss[0]), 4)
    0.4378
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(desirable_weight >= 0, f"desirable_weight must be >= 0, got {desirable_weight}")
    require(undesirable_weight >= 0, f"undesirable_weight must be >= 0, got {undesirable_weight}")
    logps, ref_logps, kl_logps, ref_kl_logps = f32(logps, ref_logps, kl_logps, ref_kl_logps)
    # a mismatched response beside an empty slot is not part of the estimate
    counted = kl_present & present
    # no gradient through z0: it would train the policy on responses to other prompts
    shift = mean_where(jax.lax.stop_gradient(kl_logps - ref_kl_logps), counted, axis_name)
    # a KL divergence is >= 0, but its estimate on mismatched pairs need not be
    z0 = jnp.maximum(shift, 0.0)
    ratio = logps - ref_logps
    # sigmoid(-x), not 1 - sigmoid(x), which loses its digits where an example is very right
    loss = jnp.where(
        label,
        desirable_weight * jax.nn.sigmoid(beta * (z0 - ratio)),
        undesirable_weight * jax.nn.sigmoid(beta * (ratio - z0)),
    )
    return loss, {"rewards": beta * ratio, "kl": jnp.broadcast_to(z0, ratio.shape)}
