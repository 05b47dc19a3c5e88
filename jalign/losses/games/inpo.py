"""INPO: iterative Nash policy optimization, and COMAL, which is INPO with a reference that follows.

Zhang et al. 2024, "Iterative Nash Policy Optimization". https://arxiv.org/abs/2407.00617. Liu et
al. 2024, "COMAL: A Convergent Meta-Algorithm for Aligning LLMs with General Preferences".
https://arxiv.org/abs/2410.23223.
"""

from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Sums = Float[Array, "B"]


def inpo(
    chosen_logps: Sums,
    rejected_logps: Sums,
    ref_chosen_logps: Sums,
    ref_rejected_logps: Sums,
    last_chosen_logps: Sums,
    last_rejected_logps: Sums,
    *,
    eta: float = 0.002,
    tau_ratio: float = 1 / 3,
) -> tuple[Sums, dict[str, Sums]]:
    """(d_w - d_l - 1 / (2 eta))^2, d = log p - r log p_ref - (1 - r) log p_last, r = tau_ratio.

    One step of mirror descent in the game regularized to the reference: over pairs of p_last that a
    preference P orders, the minimum is p ~ p_ref^r p_last^(1 - r) exp(P(y > p_last) / eta).
    Log-probs are SUMMED over tokens.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      last_chosen_logps, last_rejected_logps: the same under the policy of the last iteration, which
        the pair was drawn from.
      eta: > 0, the inverse of a step size: the margin aimed at is 1 / (2 eta) nats; 0.002, that is
        250 nats: use a small learning rate.
      tau_ratio: r = tau / eta, the part of the reference, in [0, 1]; 1/3. 0 is mirror descent in
        the game itself, 1 is `ipo_sum` with tau = eta.
    Returns:
      The unreduced loss, and eta * d as `chosen_rewards`, `rejected_rewards`.
    Raises:
      ValueError: eta <= 0, or tau_ratio outside [0, 1].
    Deviations: none from COMAL's code (`nash_loss`), whose defaults these are.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, -6.0, -7.0)]
    >>> float(inpo(*x, eta=0.5, tau_ratio=0.25)[0][0])  # d: 1.75, -1.75
    6.25
    """
    require(eta > 0, f"eta must be > 0, got {eta}")
    require(0 <= tau_ratio <= 1, f"tau_ratio must be in [0, 1], got {tau_ratio}")
    chosen, rejected, ref_chosen, ref_rejected, last_chosen, last_rejected = f32(
        chosen_logps,
        rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        last_chosen_logps,
        last_rejected_logps,
    )
    # a geometric mixture of the two anchors, so that both divergences are one log-ratio
    chosen = chosen - tau_ratio * ref_chosen - (1 - tau_ratio) * last_chosen
    rejected = rejected - tau_ratio * ref_rejected - (1 - tau_ratio) * last_rejected
    # half of it: the label is hard where the win rate against p_last is a mean over pairs
    loss = (chosen - rejected - 1 / (2 * eta)) ** 2
    return loss, {"chosen_rewards": eta * chosen, "rejected_rewards": eta * rejected}
