"""CISPO: clipped importance-sampling weights that leave every token its gradient.

MiniMax 2025, "MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention".
https://arxiv.org/abs/2506.13585, Eq. 4 and 5.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import approx_kl, bounded, log_ratios, recorded, scored


def cispo(
    token_logps: Float[Array, "B R"],
    old_token_logps: Float[Array, "B R"],
    advantages: Float[Array, "B R"],
    mask: Bool[Array, "B R"],
    *,
    ratio_min: float = 0.0,
    ratio_max: float = 5.0,
) -> tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]:
    """-stop_gradient(clip(rho, ratio_min, ratio_max)) A log p(token), rho = p / p_old of the token.

    REINFORCE with a bounded weight. PPO's clip takes the gradient from rare tokens at which a
    response turns, as soon as they have moved; here only their weight is bounded.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A, no gradient.
      mask: scored positions; values elsewhere are ignored.
      ratio_min: the smallest weight, in [0, 1]; 0 bounds nothing, as in the paper's runs.
      ratio_max: the largest weight ITSELF, not its distance from 1, >= 1; 5.
    Returns:
      The unreduced loss, 0 at unscored positions; rho as `ratio`; where a bound holds as
      `clip_ratio/low_mean` and `clip_ratio/high_mean`; `approx_kl` as in `ppo_clip`.
    Raises:
      ValueError: a number out of its range.
    Deviations: the paper bounds by 1 - e and 1 + e' (as verl does) without telling e'; TRL bounds
      above only, by its epsilon_high ITSELF, whose default, 0.2, makes every weight 0.2 or less.
      log rho is clamped to +-20.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-9.0, -2.0), a(2.0, -1.0), a(True, True)
    >>> cispo(*x, ratio_max=3.0)[0].tolist()
    [[6.0, -2.0]]
    """
    require(0 <= ratio_min <= 1, f"ratio_min must be in [0, 1], got {ratio_min}")
    # a cap below 1 scales every gradient down: TRL reads its epsilon_high 0.2 as this cap
    require(
        ratio_max >= 1,
        f"ratio_max must be >= 1: it is the largest weight, not a distance from 1; got {ratio_max}",
    )
    (logps,), (a,) = scored(mask, token_logps), recorded(mask, advantages)
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    ratio = jnp.exp(bounded(log_ratio))
    # the bound is on the weight alone, so a clipped token still has the gradient of its log-prob
    weight = jax.lax.stop_gradient(jnp.clip(ratio, ratio_min, ratio_max))
    return -weight * a * logps, {
        "ratio": ratio,
        "clip_ratio/low_mean": (ratio < ratio_min).astype(jnp.float32),
        "clip_ratio/high_mean": (ratio > ratio_max).astype(jnp.float32),
        "approx_kl": approx_kl(log_ratio),
    }
