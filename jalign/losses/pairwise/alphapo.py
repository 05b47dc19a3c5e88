"""AlphaPO: SimPO with a reward whose shape can be chosen.

Gupta et al. 2025, "AlphaPO: Reward Shape Matters for LLM Alignment".
https://arxiv.org/abs/2501.03884.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def alphapo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    alpha: float = 0.25,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta * (r_w - r_l) - gamma), with r = (1 - p^-alpha) / alpha.

    log p is the MEAN log-probability per token. alpha > 0 makes the reward steeper where p is
    small, alpha < 0 flatter; alpha = 0 is its limit log p, and the loss SimPO.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens, EOS included.
      chosen_len, rejected_len: scored tokens, >= 1.
      beta: scale of the reward, > 0; 2.
      gamma: margin the chosen reward must win by, >= 0, in reward units (already times beta).
      alpha: shape of the reward, any finite number; 0.25.
    Returns:
      The unreduced loss, and the rewards beta * r as `chosen_rewards`, `rejected_rewards`.
    Raises:
      ValueError: a number out of its range.
    Deviations: -alpha * log p is clamped to <= 80, where its exponential is still a float32; beyond
      (320 nats per token at alpha = 0.25) the reward is constant. TRL takes p = exp(log p) first,
      which is 0 and gives infinite rewards below -103.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, 4.0, 3.0)]
    >>> round(float(alphapo(*x)[0][0]), 4), round(float(alphapo(*x, alpha=0.0)[0][0]), 4)
    (0.0035, 0.0486)
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    # gamma is subtracted from rewards that are multiplied by beta already, as in `simpo`
    require(gamma >= 0, f"gamma must be >= 0, got {gamma}")
    require(abs(alpha) < math.inf, f"alpha must be finite, got {alpha}")
    chosen, rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, chosen_len, rejected_len
    )
    # of the mean per token: p of a whole response would underflow before it is shaped
    chosen_rewards = beta * _shaped(chosen / n_chosen, alpha)
    rejected_rewards = beta * _shaped(rejected / n_rejected, alpha)
    loss = -jax.nn.log_sigmoid(chosen_rewards - rejected_rewards - gamma)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}


def _shaped(logp: Array, alpha: float) -> Array:
    """(1 - exp(-alpha * logp)) / alpha, which expm1 keeps exact for a small alpha."""
    at_limit = jnp.abs(alpha) < 1e-20
    # where evaluates both branches: at alpha = 0 the other would divide by 0, NaN in the gradient
    safe = jnp.where(at_limit, 1.0, alpha)
    return jnp.where(at_limit, logp, -jnp.expm1(jnp.minimum(-safe * logp, 80.0)) / safe)
