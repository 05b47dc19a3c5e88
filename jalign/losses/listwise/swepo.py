"""SWEPO: all responses above a list's mean against all of the list, outliers weighing most.

Gupta et al. 2024, "SWEPO: Simultaneous Weighted Preference Optimization for Group Contrastive
Alignment". https://arxiv.org/abs/2412.04628.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import kept, log_sum_exp
from jalign.losses._math import require


def swepo(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.01,
    alpha: float = 1.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B K"]]]:
    """-log (sum over the good of w_k e^{s_k} / sum over all of w_k e^{s_k}), s = beta * log-ratio.

    Good responses are rated above the list's mean m. w_k = exp(alpha * |rating_k - m|): a response
    counts the more, good or bad, the further it is from the mean.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: rewards; their distance from the mean matters, in their own units.
      valid: where there is a response.
      beta: scale of s, > 0; 0.01.
      alpha: weight of the distance, per unit of rating, >= 0; 1. 0 weighs all alike.
    Returns:
      The unreduced loss per prompt (0 where all ratings are equal), and s as `rewards` [B, K], 0
      where there is no response.
    Raises:
      ValueError: a number out of its range.
    Deviations: defaults are ours. The distance of bad responses is taken as positive, as in the
      text of the paper (the furthest count most); its published code could not be compared.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(swepo(*x, beta=0.5)[0][0]), 4)
    0.8224
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(alpha >= 0, f"alpha must be >= 0, got {alpha}")
    logps, ref_logps, ratings = kept(valid, logps, ref_logps, ratings)
    scores = beta * (logps - ref_logps)
    n = jnp.maximum(valid.sum(-1, keepdims=True), 1)
    deviation = jnp.where(valid, ratings - ratings.sum(-1, keepdims=True) / n, 0.0)
    # by the order, not by the sign: the mean of equal ratings may differ from them by rounding
    low, high = jnp.where(valid, ratings, jnp.inf), jnp.where(valid, ratings, -jnp.inf)
    differ = (high.max(-1) > low.min(-1))[:, None]
    good = valid & differ & (deviation > 0)
    # the weight as a shift of the logit: exp of a large distance would overflow
    weighted = scores + alpha * jnp.abs(deviation)
    loss = log_sum_exp(weighted, valid) - log_sum_exp(weighted, good)
    # a list without a good response has no preference
    return jnp.where(good.any(-1), loss, 0.0), {"rewards": scores}
