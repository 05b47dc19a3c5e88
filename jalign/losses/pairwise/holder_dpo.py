"""Hölder-DPO: DPO by a Hölder divergence, whose gradient vanishes where a label looks wrong.

Fujisawa, Adachi, Osborne 2025, "Scalable Valuation of Human Feedback through Provably Robust Model
Alignment". https://arxiv.org/abs/2505.17859.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def holder_dpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.1,
    gamma: float = 2.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-(1 + gamma) * p^gamma + gamma * p^(1 + gamma), with p = sigmoid(h) and h DPO's margin.

    The slope with respect to h is -gamma (1 + gamma) p^gamma (1 - p)^2: it redescends, so that a
    pair whose label the policy holds for wrong (h far below 0) no longer pulls. DPO's slope is
    -(1 - p), largest at such a pair.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      gamma: how soon doubtful labels are given up, > 0; 2.
    Returns:
      The unreduced loss, in (-1, 0), and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: a number out of its range.
    Deviations: none known. It is the density-power member of the family, phi(x) = gamma - (1 +
      gamma) x; the estimate of the share of wrong labels is `jalign.eval.metrics.label_noise`.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(holder_dpo(*x, beta=0.5)[0][0]), 4)
    -0.8219
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(gamma > 0, f"gamma must be > 0, got {gamma}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    log_p = jax.nn.log_sigmoid(chosen_rewards - rejected_rewards)
    # powers as exponentials: p itself underflows, and the derivative of 0 ** gamma is not finite
    loss = -(1 + gamma) * jnp.exp(gamma * log_p) + gamma * jnp.exp((1 + gamma) * log_p)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
