"""Regression of a pair's log-ratios on win rates against an opponent: EGPO and optimistic MWU.

Zhou et al. 2025, "Extragradient Preference Optimization (EGPO)". https://arxiv.org/abs/2503.08942.
Chen et al. 2025, "Unregularized Linear Convergence in Zero-Sum Game from Preference Feedback"
(OMWU). https://arxiv.org/abs/2512.24818. Zhang et al. 2025, "Improving LLM General Preference
Alignment via Optimistic Online Mirror Descent" (ONPO). https://arxiv.org/abs/2502.16852.

`ipo` aims at one margin for every pair; here the margin is how much more often the chosen response
beats a third one.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Sums = Float[Array, "B"]
Out = tuple[Sums, dict[str, Sums]]


def egpo(
    chosen_logps: Sums,
    rejected_logps: Sums,
    ref_chosen_logps: Sums,
    ref_rejected_logps: Sums,
    chosen_win_rate: Sums,
    rejected_win_rate: Sums,
    *,
    beta: float = 0.1,
) -> Out:
    """(d_w - d_l - (P_w - P_l) / beta)^2, d = log p(response) - log p_ref(response), summed.

    Online IPO in the form whose gradient has little variance. The extragradient is the row's, not
    the loss's: P is taken against the policy after a half step (`Algorithm.last`).

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens. The loss is the same if the
        two responses change places.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_win_rate, rejected_win_rate: P_w, P_l, the probability that a response is preferred to
        one of the opponent, in [0, 1]; no gradient.
      beta: weight of the KL divergence, > 0; 0.1, one of the authors' simulations'.
    Returns:
      The unreduced loss, and beta * d as `chosen_rewards`, `rejected_rewards`, whose difference
      aims at P_w - P_l.
    Raises:
      ValueError: beta <= 0.
    Deviations: none in value from the authors' `online_ipo_1`, whose pairs are drawn uniformly, not
      from the policy.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 0.75, 0.5)]
    >>> float(egpo(*x, beta=0.25)[0][0])
    1.0
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    logps = chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    return _squared(*f32(*logps, chosen_win_rate, rejected_win_rate), scale=beta)


def omwu(
    chosen_logps: Sums,
    rejected_logps: Sums,
    ref_chosen_logps: Sums,
    ref_rejected_logps: Sums,
    chosen_win_rate: Sums,
    rejected_win_rate: Sums,
    *,
    eta: float = 10.0,
) -> Out:
    """(d_w - d_l - eta (P_w - P_l))^2, P = 2 P(y > p_t) - P(y > p_(t-1)), d to p_t.

    Optimistic multiplicative weights: the win rate against the policy of this iteration, corrected
    by its change since the one before. It regularizes to no fixed reference, so its last policy
    tends to the equilibrium of the game itself.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens. The loss is the same if the
        two responses change places.
      ref_chosen_logps, ref_rejected_logps: the same under p_t, the policy this iteration began
        with.
      chosen_win_rate, rejected_win_rate: P, in [-1, 2]; no gradient.
      eta: step size, > 0, nats per unit of P; 10. Small steps are what the theory asks for.
    Returns:
      The unreduced loss, and d / eta as `chosen_rewards`, `rejected_rewards`, whose difference aims
      at P_w - P_l.
    Raises:
      ValueError: eta <= 0.
    Deviations: the two steps of ONPO (with m_t = r_(t-1)) are taken at once:
      p_(t+1) ~ p_t exp(eta (2 r_t - r_(t-1))), which needs no second policy; ONPO regresses on hard
      labels, this on probabilities.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 1.25, 0.5)]
    >>> float(omwu(*x, eta=4.0)[0][0])
    1.0
    """
    require(eta > 0, f"eta must be > 0, got {eta}")
    logps = chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    # multiplicative weights step by eta where a divergence of weight beta stops at 1 / beta
    return _squared(*f32(*logps, chosen_win_rate, rejected_win_rate), scale=1 / eta)


def _squared(
    chosen: Array,
    rejected: Array,
    ref_chosen: Array,
    ref_rejected: Array,
    win_chosen: Array,
    win_rejected: Array,
    *,
    scale: float,
) -> Out:
    chosen, rejected = chosen - ref_chosen, rejected - ref_rejected
    # the opponent's share of the target is data, also where the policy itself is the opponent
    target = jax.lax.stop_gradient(win_chosen - win_rejected) / scale
    loss = (chosen - rejected - target) ** 2
    return loss, {"chosen_rewards": scale * chosen, "rejected_rewards": scale * rejected}
