"""The covariance of log-probs and advantages, which the entropy falls by, token by token.

Cui et al. 2025, "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models",
https://arxiv.org/abs/2505.22617, Eq. 10 and section 4.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.advantages._arrays import centered
from jalign.losses._math import require

Tokens = Float[Array, "*P"]
Mask = Bool[Array, "*P"]


def covariances(token_logps: Tokens, advantages: Tokens, mask: Mask) -> Tokens:
    """(log p - mean log p) (A - mean A), means over all tokens of the mask; 0 outside of it.

    >>> a = lambda *x: jnp.array(x)
    >>> covariances(a(-1.0, -3.0), a(2.0, 0.0), a(True, True)).tolist()
    [1.0, 1.0]
    """
    return centered(token_logps, mask) * centered(advantages, mask)


def highest(x: Tokens, mask: Mask, *, share: float) -> Mask:
    """Whether a token is among the `share` of the mask with the highest values, at least one.

    Args:
      share: in (0, 1]; share * n is rounded down.
    Raises:
      ValueError: share outside of (0, 1].
    >>> highest(jnp.array([1.0, 4.0, 2.0]), jnp.array([True, True, True]), share=0.7).tolist()
    [False, True, True]
    """
    require(0 < share <= 1, f"cov_ratio must be in (0, 1], got {share}")
    flat = jnp.where(mask, jnp.asarray(x, jnp.float32), -jnp.inf).reshape(-1)
    # the rank by two sorts: a threshold would take all of equal values
    rank = jnp.argsort(jnp.argsort(flat, descending=True)).reshape(mask.shape)
    return mask & (rank < jnp.maximum(jnp.floor(share * jnp.sum(mask)), 1))


def random_between(
    x: Tokens, uniforms: Tokens, mask: Mask, *, low: float, high: float, share: float
) -> Mask:
    """Random tokens out of those with low < x < high: at most `share` of the mask, at least one if
    there is any.

    Args:
      uniforms: random numbers in [0, 1), independent of x.
      low, high: bounds of x, low < high.
      share: in (0, 1].
    Raises:
      ValueError: low >= high, or share outside of (0, 1].
    >>> x, u = jnp.array([1.5, 9.0, 2.0]), jnp.array([0.3, 0.9, 0.2])
    >>> random_between(x, u, x > 0, low=1.0, high=5.0, share=0.4).tolist()
    [True, False, False]
    """
    require(low < high, f"cov_low must be below cov_high, got {low} and {high}")
    require(0 < share <= 1, f"cov_ratio must be in (0, 1], got {share}")
    inside = mask & (x > low) & (x < high)
    flat = jnp.where(inside, uniforms, -1.0).reshape(-1)
    rank = jnp.argsort(jnp.argsort(flat, descending=True)).reshape(mask.shape)
    return inside & (rank < jnp.maximum(jnp.floor(share * jnp.sum(mask)), 1))
