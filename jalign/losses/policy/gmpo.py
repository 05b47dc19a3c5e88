"""GMPO: geometric-mean policy optimization.

Zhao et al. 2025, "Geometric-Mean Policy Optimization". https://arxiv.org/abs/2507.20673.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import (
    approx_kl,
    bounded,
    log_ratios,
    mean_of_response,
    of_response,
    recorded,
)

Tokens = Float[Array, "B R"]


def gmpo(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Bool[Array, "B R"],
    *,
    clip_low: float = 0.4,
    clip_high: float = 0.4,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-A exp(mean over tokens of clip(log rho)), rho = p(token) / p_old(token).

    log rho is clipped per token on the side that A pulls to: at most clip_high where A > 0, at
    least -clip_low where A < 0. The geometric mean weighs no single token by its own ratio, and
    the clip of tokens leaves the others their gradient, where GSPO's clip drops the response.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A of the response at its tokens; the first one is read. No gradient.
      mask: scored positions; values elsewhere are ignored.
      clip_low, clip_high: bounds of |log rho|, nats, > 0; 0.4.
    Returns:
      The unreduced loss per response; its geometric mean as `ratio`; the share of clipped tokens as
      `clip_ratio/low_mean` (A < 0) and `clip_ratio/high_mean` (A > 0); `approx_kl`, nats per token.
    Raises:
      ValueError: a bound <= 0.
    Deviations: the mean of the clipped log-ratios is clamped to +-20.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.5, -1.5), a(3.0, 3.0), a(True, True)
    >>> gmpo(*x, clip_high=0.5)[0].tolist()
    [-3.0]
    """
    require(clip_low > 0, f"clip_low must be > 0, got {clip_low}")
    require(clip_high > 0, f"clip_high must be > 0, got {clip_high}")
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    a = of_response(*recorded(mask, advantages), mask)
    # by the sign of A: a token on its way back keeps its gradient, however far off it is
    low = (a < 0)[:, None] & (log_ratio < -clip_low)
    high = (a > 0)[:, None] & (log_ratio > clip_high)
    # a where, not min and max: the bound is a constant, so the gradient there is exactly 0
    held = jnp.where(low, -clip_low, jnp.where(high, clip_high, log_ratio))
    # the mean of logarithms: a product of ratios, and then its root, would overflow
    ratio = jnp.exp(bounded(mean_of_response(held, mask)))
    return -a * ratio, {
        "ratio": ratio,
        "clip_ratio/low_mean": mean_of_response(low.astype(jnp.float32), mask),
        "clip_ratio/high_mean": mean_of_response(high.astype(jnp.float32), mask),
        "approx_kl": mean_of_response(approx_kl(log_ratio), mask),
    }
