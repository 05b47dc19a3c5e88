"""SAPO: soft adaptive policy optimization, a smooth gate in place of the clip.

Gao et al. 2025, "Soft Adaptive Policy Optimization". https://arxiv.org/abs/2511.20347.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import approx_kl, bounded, log_ratios, recorded

Tokens = Float[Array, "B R"]


def sapo(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Bool[Array, "B R"],
    *,
    tau_pos: float = 1.0,
    tau_neg: float = 1.05,
) -> tuple[Tokens, dict[str, Tokens]]:
    """-A (4 / tau) sigmoid(tau (rho - 1)), rho = p(token) / p_old(token), tau by the sign of A.

    The gate has slope 1 at rho = 1 and falls off on both sides, so a token that has moved far
    loses its gradient gradually, faster where A < 0. The clip of PPO takes all of it at once.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A, no gradient.
      mask: scored positions; values elsewhere are ignored.
      tau_pos, tau_neg: steepness of the gate where A > 0 and elsewhere, > 0; 1 and 1.05.
    Returns:
      The unreduced loss, 0 at unscored positions; rho as `ratio`; the gate's slope, 1 at rho = 1,
      as `gate`; `approx_kl` as in `ppo_clip`.
    Raises:
      ValueError: a steepness <= 0.
    Deviations: log rho is clamped to +-20, as in verl; TRL clamps nothing.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> sapo(a(-1.0, -2.0), a(-1.0, -2.0), a(3.0, 0.0), a(True, True))[0].tolist()
    [[-6.0, -0.0]]
    """
    require(tau_pos > 0, f"tau_pos must be > 0, got {tau_pos}")
    require(tau_neg > 0, f"tau_neg must be > 0, got {tau_neg}")
    (a,) = recorded(mask, advantages)
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    ratio = jnp.exp(bounded(log_ratio))
    # steeper for A < 0: lowering one token raises all others of the vocabulary
    tau = jnp.where(a > 0, tau_pos, tau_neg)
    gate = jax.nn.sigmoid(tau * (ratio - 1))
    # 4 / tau makes the slope 1 at rho = 1, so that the first step is the policy gradient
    return -a * gate * 4 / tau, {
        "ratio": ratio,
        "gate": 4 * gate * (1 - gate),
        "approx_kl": approx_kl(log_ratio),
    }
