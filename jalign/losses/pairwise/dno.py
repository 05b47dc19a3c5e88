"""DNO: direct Nash optimization, the regression of one iteration.

Rosset et al. 2024, "Direct Nash Optimization: Teaching Language Models to Self-Improve with General
Preferences". https://arxiv.org/abs/2404.03715.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def dno(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    chosen_prob: Float[Array, "B"],
    *,
    beta: float = 0.1,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-p log sigmoid(h) - (1 - p) log sigmoid(-h), with h = beta * (chosen - rejected log-ratio).

    p is the soft label sigmoid(r(chosen) - r(rejected)), where r is a response's expected win rate
    against the policy of this iteration; log-ratios are SUMMED over tokens and taken to that same
    policy. At p = 1 it is DPO: DNO-Prct, the form the authors train, is DPO on the pairs with a
    large margin.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the policy the iteration started from.
      chosen_prob: p in [0, 1], that the chosen response is the better one. From win rates it lies
        in [0.27, 0.73]; any other soft label serves as well.
      beta: eta in the paper, > 0; 0.1.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: none known; no code of the authors was found. TRL has no DNO.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 0.75)]
    >>> round(float(dno(*x, beta=0.5)[0][0]), 4)
    0.5633
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected, p = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_prob
    )
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    h = chosen_rewards - rejected_rewards
    # log_sigmoid(-h), since log(1 - sigmoid(h)) is -inf in float32 from about h = 17 on
    loss = -p * jax.nn.log_sigmoid(h) - (1 - p) * jax.nn.log_sigmoid(-h)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
