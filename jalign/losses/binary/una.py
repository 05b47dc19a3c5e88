"""UNA: the implicit reward of a single response is fitted to its score.

Wang et al. 2024, "UNA: Unifying Alignments of RLHF/PPO, DPO and KTO by a Generalized Implicit
Reward Function". https://arxiv.org/abs/2408.15339, Eq. 11 and 12. With demonstrations as responses
of score 1: Wang et al. 2024, "UFT: Unifying Fine-Tuning of SFT and RLHF/DPO/UNA through a
Generalized Implicit Reward Function". https://arxiv.org/abs/2410.21438, Eq. 7.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32
from jalign.losses.implicit import implicit_rewards

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def una(
    logps: Float[Array, "B"],
    ref_logps: Float[Array, "B"],
    rating: Float[Array, "B"],
    *,
    beta: float = 0.03,
) -> Out:
    """(sigmoid(r) - score)^2 with r = beta * log-ratio, SUMMED over tokens.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      rating: the score, in [0, 1]. Of a label it is 1 or 0, of a demonstration 1.
      beta: scale of the implicit reward, > 0; 0.03 for scores in the authors' runs, 0.01 for labels
        and for demonstrations.
    Returns:
      The unreduced loss, and r as `rewards`.
    Raises:
      ValueError: beta <= 0.
    Deviations: none from the authors' code, whose implicit reward has no constant of the prompt.
    >>> import jax.numpy as jnp
    >>> round(float(una(jnp.array([-4.0]), jnp.array([-5.0]), jnp.array([0.9]), beta=0.5)[0][0]), 4)
    0.077
    """
    rewards, (rating,) = implicit_rewards(logps, ref_logps, beta=beta), f32(rating)
    return (jax.nn.sigmoid(rewards) - rating) ** 2, {"rewards": rewards}


def una_bce(
    logps: Float[Array, "B"],
    ref_logps: Float[Array, "B"],
    rating: Float[Array, "B"],
    *,
    beta: float = 0.01,
) -> Out:
    """-score log sigmoid(r) - (1 - score) log sigmoid(-r) with r = beta * log-ratio, SUMMED.

    Unlike the square of `una` it has a gradient also where the reward is far from the score.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      rating: the score, in [0, 1]. Of a label it is 1 or 0, of a demonstration 1.
      beta: scale of the implicit reward, > 0; 0.01.
    Returns:
      The unreduced loss, and r as `rewards`.
    Raises:
      ValueError: beta <= 0.
    Deviations: the authors take it for labels only; a score between 0 and 1 is a soft label here.
    >>> import jax.numpy as jnp
    >>> x = jnp.array([-4.0]), jnp.array([-5.0]), jnp.array([0.9])
    >>> round(float(una_bce(*x, beta=0.5)[0][0]), 4)
    0.5241
    """
    rewards, (rating,) = implicit_rewards(logps, ref_logps, beta=beta), f32(rating)
    # log_sigmoid, since log(sigmoid) is -inf far from the label
    loss = -rating * jax.nn.log_sigmoid(rewards) - (1 - rating) * jax.nn.log_sigmoid(-rewards)
    return loss, {"rewards": rewards}
