"""NPO: negative preference optimization, from responses to unlearn.

Zhang, Lin, Bai, Mei 2024, "Negative Preference Optimization: From Catastrophic Collapse to
Effective Unlearning". https://arxiv.org/abs/2404.05868.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def npo(
    rejected_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.1,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-(2 / beta) * log sigmoid(-beta * d), with d the log-ratio of the rejected response.

    DPO without the chosen response. d is SUMMED over tokens. Its gradient by d, 2 sigmoid(beta d),
    is 1 at the reference, tends to 1 everywhere as beta goes to 0 (`gradient_ascent`), and vanishes
    as the response becomes unlikely, so that the model does not collapse.

    Args:
      rejected_logps: log p(response to unlearn | prompt), nats, summed over response tokens.
      ref_rejected_logps: the same under the reference.
      beta: inverse temperature, > 0; 0.1. Smaller is closer to gradient ascent.
    Returns:
      The unreduced loss, and `rejected_rewards` (beta * d).
    Raises:
      ValueError: beta <= 0.
    Deviations: the authors also add a term on responses to retain, their NLL or the KL from the
      reference, each with weight 1: `losses.nll`, `forward_kl_on_chosen`
      (`jalign.losses.regularizers`).
    >>> import jax.numpy as jnp
    >>> round(float(npo(jnp.array([-9.5]), jnp.array([-8.0]), beta=0.5)[0][0]), 4)
    1.5475
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    rejected, ref_rejected = f32(rejected_logps, ref_rejected_logps)
    rewards = beta * (rejected - ref_rejected)
    # 2 / beta: the slope at the reference is then 1 for every beta, that of gradient ascent
    return -2 / beta * jax.nn.log_sigmoid(-rewards), {"rejected_rewards": rewards}
