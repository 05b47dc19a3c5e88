"""SimPO: preference optimization with a reference-free, length-normalized reward.

Meng, Xia, Chen 2024. https://arxiv.org/abs/2405.14734, Eq. 6.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def simpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta * (mean chosen - mean rejected) - gamma), one value per pair.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens, EOS included.
      chosen_len, rejected_len: scored tokens, >= 1.
      beta: scale of the reward, > 0; 2 to 10 in the paper.
      gamma: margin the chosen reward must win by, >= 0, in reward units (already times beta; the
        authors' code takes gamma / beta).
    Returns:
      The unreduced loss, and the rewards beta * mean log-probability as `chosen_rewards`,
      `rejected_rewards`.
    Raises:
      ValueError: a number out of its range.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, 4.0, 3.0)]
    >>> round(float(simpo(*x)[0][0]), 4)
    0.0486
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(gamma >= 0, f"gamma must be >= 0, got {gamma}")
    chosen, rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, chosen_len, rejected_len
    )
    chosen_rewards, rejected_rewards = beta * chosen / n_chosen, beta * rejected / n_rejected
    # gamma is not multiplied by beta: the authors' code has beta * (difference - gamma / beta)
    loss = -jax.nn.log_sigmoid(chosen_rewards - rejected_rewards - gamma)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
