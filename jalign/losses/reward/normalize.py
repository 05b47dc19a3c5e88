"""Normalization of a trained reward model: gain and bias so that scores have a given spread.

Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences".
https://arxiv.org/abs/1909.08593, section 2.2.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def fit_normalization(
    scores: Float[Array, "N"], *, mean: float = 0.0, std: float = 1.0
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """gain, bias such that gain * score + bias has `mean` and `std` on the given scores.

    Preferences identify a reward only up to a constant, and nothing ties its scale to the KL
    coefficient of the RL that follows. So fit this once, on samples of the policy that RL starts
    from, and keep it fixed. To let demonstrations score `mean` instead (InstructGPT: 0), fit on
    samples, then correct the bias by mean - (gain * demonstrations + bias).mean().

    Args:
      scores: rewards of samples, at least two different ones.
      mean: wanted; 0.
      std: wanted, > 0; 1.
    Returns:
      gain and bias, scalars.
    Raises:
      ValueError: std <= 0, or all scores equal. (Under jit the latter cannot be seen: the gain is
        then std / 1e-8.)
    Deviations: the spread is that of the samples, divided by N, not N - 1.
    >>> import jax.numpy as jnp
    >>> gain, bias = fit_normalization(jnp.array([1.0, 5.0]), mean=1.0, std=0.5)
    >>> float(gain), float(bias)
    (0.25, 0.25)
    """
    require(std > 0, f"std must be > 0, got {std}")
    (scores,) = f32(scores)
    spread = jnp.std(scores)
    require(spread > 0, f"scores must differ to be normalized, got {scores.size} equal ones")
    # under jit the check above cannot look at values: the floor keeps the gain finite
    gain = std / jnp.maximum(spread, 1e-8)
    return gain, mean - gain * jnp.mean(scores)
