"""epsilon-DPO: DPO with a beta of its own for each pair, from the effect of a small change of beta.

Lee et al. 2025, "KL Penalty Control via Perturbation for Direct Preference Optimization".
https://arxiv.org/abs/2502.13177.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def epsilon_dpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    chosen_kl_to_ref: Float[Array, "B"],
    rejected_kl_to_ref: Float[Array, "B"],
    relaxation: Float[Array, ""],
    *,
    beta: float = 0.01,
    epsilon: float = 0.01,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta_i * D), D the difference of the summed log-ratios of a pair.

    beta_i = beta / (c_t * (1 + epsilon * s)), where s is the sign of D - (S_w - S_l) and S the sum
    over a response's tokens of KL(policy || reference). A policy with logits (1 + e) z - e z_ref is
    the one that a beta divided by 1 + e would have trained; s is the sign of the change of the
    pair's log-probability margin with e. So beta falls for pairs that a weaker penalty would
    separate better, and rises for the others. c_{t + 1} is the mean of c_t * (1 + epsilon * s) over
    the step's pairs, and c_0 = 1.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_kl_to_ref, rejected_kl_to_ref: S, nats, >= 0.
      relaxation: c_t, by how much the penalty is weaker than at the start; NaN at the start.
      beta: beta of the first step, > 0; 0.01.
      epsilon: relative size of a step of beta, in [0, 1); 0.01. 0 is DPO.
    Returns:
      The unreduced loss; `chosen_rewards`, `rejected_rewards` (beta_i * log-ratio); c_t * (1 +
      epsilon * s) as `relaxation`.
    Raises:
      ValueError: a number out of its range.
    Deviations: the paper compares the margin with those of the policies at e = epsilon and -epsilon
      and leaves beta unchanged where it is not monotonic; here s is its derivative at e = 0, which
      needs no further sweep over the vocabulary. The two differ where the derivative is about
      epsilon times the difference of the variances.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 0.5, 1.5)]
    >>> loss, metrics = epsilon_dpo(*x, jnp.array(jnp.nan), beta=0.5, epsilon=0.25)
    >>> round(float(loss[0]), 4), float(metrics["relaxation"][0])
    (0.3711, 1.25)
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require((epsilon >= 0) & (epsilon < 1), f"epsilon must be in [0, 1), got {epsilon}")
    chosen, rejected, ref_chosen, ref_rejected, s_chosen, s_rejected, running = f32(
        chosen_logps,
        rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        chosen_kl_to_ref,
        rejected_kl_to_ref,
        relaxation,
    )
    chosen_ratio, rejected_ratio = chosen - ref_chosen, rejected - ref_rejected
    margin = chosen_ratio - rejected_ratio
    # a choice among policies, not a term of the loss
    sign = jax.lax.stop_gradient(jnp.sign(margin - (s_chosen - s_rejected)))
    weaker = jnp.where(jnp.isnan(running), 1.0, running) * (1 + epsilon * sign)
    # the mean of inverse betas is exact over micro-batches; that of betas would be another
    own_beta = beta / weaker
    return -jax.nn.log_sigmoid(own_beta * margin), {
        "chosen_rewards": own_beta * chosen_ratio,
        "rejected_rewards": own_beta * rejected_ratio,
        "relaxation": weaker,
    }
