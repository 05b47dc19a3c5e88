"""REBEL: reinforcement learning by regressing relative rewards.

Gao et al. 2024, "REBEL: Reinforcement Learning via Regressing Relative Rewards".
https://arxiv.org/abs/2404.16767, Algorithm 1.
"""

from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Pairs = Float[Array, "B"]


def rebel(
    chosen_logps: Pairs,
    rejected_logps: Pairs,
    ref_chosen_logps: Pairs,
    ref_rejected_logps: Pairs,
    margin: Pairs,
    *,
    eta: float = 1.0,
) -> tuple[Pairs, dict[str, Pairs]]:
    """((log(p / p_t)(chosen) - log(p / p_t)(rejected)) / eta - margin)^2.

    p_t is the policy of the last iteration, which sampled both responses: the optimum of a step
    that maximizes reward - KL(p || p_t) / eta has exactly that difference. With eta small and fresh
    samples its gradient is the policy gradient with the other response as the baseline.

    Args:
      chosen_logps, rejected_logps: log p(response), summed over tokens, nats.
      ref_chosen_logps, ref_rejected_logps: the same under p_t.
      margin: reward of the chosen minus that of the rejected response; may be negative or 0.
      eta: size of the step, > 0; 1.
    Returns:
      The unreduced loss, and log(p / p_t) / eta as `chosen_rewards` and `rejected_rewards`.
    Raises:
      ValueError: eta <= 0.
    Deviations: the authors' code multiplies by eta^2, which is 1 at its default.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-3.0, -6.0, -4.0, -5.0, 0.5)]
    >>> rebel(*x, eta=2.0)[0].tolist()
    [0.25]
    """
    require(eta > 0, f"eta must be > 0, got {eta}")
    chosen, rejected, old_chosen, old_rejected, margin = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, margin
    )
    rewards = (chosen - old_chosen) / eta, (rejected - old_rejected) / eta
    # a square, not a logistic loss: the margin is the reward's own, not its sign
    loss = (rewards[0] - rewards[1] - margin) ** 2
    return loss, {"chosen_rewards": rewards[0], "rejected_rewards": rewards[1]}
