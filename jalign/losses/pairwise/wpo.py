"""WPO: DPO that weights a pair by how likely the policy is to write it.

Zhou et al. 2024, "WPO: Enhancing RLHF with Weighted Preference Optimization".
https://arxiv.org/abs/2406.11827, Eq. 2, with sampled alignment of the weights.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def wpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    chosen_log_sum_p_squared: Float[Array, "B"],
    rejected_log_sum_p_squared: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    *,
    beta: float = 0.01,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-w log sigmoid(beta * (d_w - d_l)), w = min(1, exp(mean a(chosen) + mean a(rejected))).

    d is the summed log-ratio of a response; a_t = log p_t - log sum_v p_v^2 compares the token with
    what sampling from the policy gives on average, so that w is about 1 for responses of the policy
    itself and small for those it would not write. w has no gradient.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_log_sum_p_squared, rejected_log_sum_p_squared: log sum_v p_v^2 over the vocabulary, of
        the policy, SUMMED over response tokens; nats, <= 0.
      chosen_len, rejected_len: scored tokens, >= 1.
      beta: inverse temperature of the implicit reward, > 0; 0.01.
    Returns:
      The unreduced loss; the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio); `weight` (w).
    Raises:
      ValueError: beta <= 0.
    Deviations: w is clamped at 1, the product and not each factor, as in the authors' code; TRL
      1.16 (`use_weighting`) does not clamp, so that there a pair of very likely tokens counts more
      than once.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, -3.0, -6.0, 4.0, 6.0)]
    >>> loss, metrics = wpo(*x, beta=0.5)
    >>> round(float(metrics["weight"][0]), 4), round(float(loss[0]), 4)
    (0.4724, 0.148)
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    usual_chosen, usual_rejected, n_chosen, n_rejected = f32(
        chosen_log_sum_p_squared, rejected_log_sum_p_squared, chosen_len, rejected_len
    )
    # means: the exponential of a sum over tokens would be 0 for every long response
    aligned = (chosen - usual_chosen) / n_chosen + (rejected - usual_rejected) / n_rejected
    # clamped at 1 as the authors do; unbounded, a pair that the policy likes would dominate
    weight = jax.lax.stop_gradient(jnp.exp(jnp.minimum(aligned, 0.0)))
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    loss = -weight * jax.nn.log_sigmoid(chosen_rewards - rejected_rewards)
    return loss, {
        "chosen_rewards": chosen_rewards,
        "rejected_rewards": rejected_rewards,
        "weight": weight,
    }
