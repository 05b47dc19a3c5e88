"""DiscoPOP: a blend of the logistic and the exponential loss that a language model discovered.

Lu et al. 2024, "Discovering Preference Optimization Algorithms with and for Large Language Models".
https://arxiv.org/abs/2406.08414, Eq. 5, the log-ratio modulated loss (LRML).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def discopop(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.05,
    tau: float = 0.05,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-(1 - m) log sigmoid(h) + m exp(-h), with m = sigmoid(h / tau).

    h = beta * (chosen - rejected log-ratio), SUMMED over tokens. Where the pair is ordered wrongly
    the loss is that of DPO, where it is ordered rightly exp(-h). In between it is not convex: with
    tau = 0.05 it has a minimum at h = -0.119 and a maximum at 0.072 and RISES from one to the
    other, so that descent moves a pair there, and that is every pair at step 0, the wrong way. The
    paper reports such a slope at 0 and runs that stay in the minimum.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0. The loss was discovered at 0.05 and
        does not converge in the paper at 0.01 and below or at 2.5 and above.
      tau: width of the blend in units of h, > 0; 0.05. TRL calls it `discopop_tau`.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: a number out of its range.
    Deviations: none from Eq. 5, the authors' code and TRL 1.16; the paper's Eq. 4 has a slip of
      sign, and its appendix a listing with m = sigmoid(log-ratio), the same where beta = tau.
      m exp(-h) is taken as one exponential, clamped at exp(80): apart they are 0 * inf = NaN far
      below 0, which may be the NaN the paper reports at a large beta.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(discopop(*x)[0][0]), 4)
    0.8738
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(tau > 0, f"tau must be > 0, got {tau}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    h = chosen_rewards - rejected_rewards
    # sigmoid(-x) is 1 - m without the cancellation at a large h
    logistic = -jax.nn.sigmoid(-h / tau) * jax.nn.log_sigmoid(h)
    # one exponential: far below 0 the factors are m = 0 and exp(-h) = inf, whose product is NaN
    exponential = jnp.exp(jnp.minimum(jax.nn.log_sigmoid(h / tau) - h, 80.0))
    return logistic + exponential, {
        "chosen_rewards": chosen_rewards,
        "rejected_rewards": rejected_rewards,
    }
