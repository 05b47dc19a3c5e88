"""D2O: distributional dispreference optimization, from one negative and self-made anchors.

Duan et al. 2024, "Negating Negatives: Alignment with Human Negative Samples via Distributional
Dispreference Optimization". https://arxiv.org/abs/2403.03419.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require


def d2o(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.1,
    alpha: float = 0.1,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B K"]]]:
    """-log sigmoid(beta * mean_k d_k - alpha * d_neg), d the log-ratio SUMMED over tokens.

    The negative is the response with the lowest rating (the first of several), the anchors k are
    all others that exist: the model's own samples, which keep it from collapsing while the
    negative becomes less likely. Their ratings matter only in being higher.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: higher is better; mark the negative with 0 and the anchors with 1, say.
      valid: where there is a response.
      beta: scale of the anchors' mean log-ratio, > 0; 0.1.
      alpha: scale of the negative's log-ratio, > 0; 0.1.
    Returns:
      The unreduced loss per prompt, and `rewards` [B, K]: beta * d of an anchor, alpha * d of the
      negative, 0 where there is no response.
    Raises:
      ValueError: a number out of its range.
    Deviations: the paper may take a more harmful reference for the anchors and a more helpful one
      for the negative; here one reference serves both. The anchors are averaged once (a known copy
      divides by their number twice). Without anchors their mean counts as 0.
    >>> import jax.numpy as jnp
    >>> logps, ref = jnp.array([[-4.0, -6.0, -9.5]]), jnp.array([[-5.0, -6.5, -8.0]])
    >>> ratings, valid = jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[True, True, True]])
    >>> round(float(d2o(logps, ref, ratings, valid, beta=0.5, alpha=0.2)[0][0]), 4)
    0.4116
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(alpha > 0, f"alpha must be > 0, got {alpha}")
    logps, ref_logps, ratings = f32(logps, ref_logps, ratings)
    ratio = jnp.where(valid, logps - ref_logps, 0.0)
    lowest = jnp.argmin(jnp.where(valid, ratings, jnp.inf), -1, keepdims=True)
    # one index, not ratings == minimum: of tied ratings only one response is the negative
    negative = valid & (jnp.arange(valid.shape[-1]) == lowest)
    rewards = jnp.where(negative, alpha, beta) * ratio
    anchors = jnp.sum(jnp.where(negative, 0.0, rewards), -1)
    # all but the negative, and once: a public copy divides by their number twice
    count = jnp.maximum(valid.sum(-1) - 1, 1)
    against = jnp.sum(jnp.where(negative, rewards, 0.0), -1)
    return -jax.nn.log_sigmoid(anchors / count - against), {"rewards": rewards}
