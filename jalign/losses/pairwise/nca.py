"""NCA: noise contrastive alignment, for preference pairs.

Chen et al. 2024, "Noise Contrastive Alignment of Language Models with Explicit Rewards".
https://arxiv.org/abs/2402.05369. The InfoNCA loss of the same paper is, for a pair, DPO to the
letter (`jalign.losses.pairwise.dpo`): a cross entropy over two softmax outputs is a logistic loss.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def nca_pair(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.01,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(r_w) - (log sigmoid(-r_w) + log sigmoid(-r_l)) / 2, r = beta * log-ratio.

    Log-ratios are SUMMED over tokens. Each response is distinguished from samples of the reference
    by itself, so its own likelihood counts and not only the lead of one over the other, which under
    DPO can grow while both fall: r_w is drawn to log 2, r_l downwards.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: scale of the implicit reward, > 0; 0.01.
    Returns:
      The unreduced loss, and the implicit rewards r_w, r_l as `chosen_rewards`,
      `rejected_rewards`.
    Raises:
      ValueError: beta <= 0.
    Deviations: none in the pair form; TRL's `nca_pair` is the same, with beta 0.1 by default.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(nca_pair(*x, beta=0.5)[0][0]), 4)
    1.1982
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    # each response against noise by itself: a difference of rewards, as in DPO, lets both fall
    noise = jax.nn.log_sigmoid(-chosen_rewards) + jax.nn.log_sigmoid(-rejected_rewards)
    loss = -jax.nn.log_sigmoid(chosen_rewards) - 0.5 * noise
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
