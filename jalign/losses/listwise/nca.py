"""NCA and InfoNCA on lists: noise contrastive alignment with explicit rewards.

Chen et al. 2024, "Noise Contrastive Alignment of Language Models with Explicit Rewards".
https://arxiv.org/abs/2402.05369. For pairs: `jalign.losses.pairwise.nca`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import kept, log_softmax
from jalign.losses._math import require

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B K"]]]


def nca_list(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.01,
    reward_temperature: float = 1.0,
) -> Out:
    """-sum_k w_k log sigmoid(r_k) - (1/n) sum_k log sigmoid(-r_k), w = softmax(ratings / t).

    r = beta * log-ratio, SUMMED over tokens; n responses. Each is distinguished from a sample of
    the reference by itself: r_k is drawn to log(n w_k), an absolute height, so the likelihood of
    the good ones does not fall as it may where only differences count.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: rewards; their differences matter, and their scale.
      valid: where there is a response.
      beta: scale of the implicit reward r, > 0; 0.01.
      reward_temperature: t, what the rewards are divided by, > 0; 1 (the paper's alpha). Near 0
        only the best counts.
    Returns:
      The unreduced loss per prompt (0 for an empty list), and r as `rewards` [B, K], 0 where there
      is no response.
    Raises:
      ValueError: a number out of its range.
    Deviations: the authors' code adds 0.01 to the first reward of each list, against ties; not
      here. TRL has the pair form only.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(nca_list(*x, beta=0.5)[0][0]), 4)
    1.4234
    """
    rewards, log_w = _rewards(logps, ref_logps, ratings, valid, beta, reward_temperature)
    # of this list, not K: padded slots must not weaken the noise term
    n = jnp.maximum(valid.sum(-1, keepdims=True), 1)
    data = jnp.exp(log_w) * jax.nn.log_sigmoid(rewards)
    noise = jax.nn.log_sigmoid(-rewards) / n
    return -jnp.sum(jnp.where(valid, data + noise, 0.0), -1), {"rewards": rewards}


def info_nca_list(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.01,
    reward_temperature: float = 1.0,
) -> Out:
    """-sum_k w_k log softmax(r)_k, w = softmax(ratings / t), r = beta * log-ratio.

    The responses of a list are distinguished from each other: only differences of r count. With two
    responses and t near 0 it is DPO.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: rewards; their differences matter, and their scale.
      valid: where there is a response.
      beta: scale of the implicit reward r, > 0; 0.01.
      reward_temperature: t, what the rewards are divided by, > 0; 1 (the paper's alpha).
    Returns:
      The unreduced loss per prompt (0 for an empty list), and r as `rewards` [B, K], 0 where there
      is no response.
    Raises:
      ValueError: a number out of its range.
    Deviations: those of `nca_list`.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(info_nca_list(*x, beta=0.5)[0][0]), 4)
    1.1271
    """
    rewards, log_w = _rewards(logps, ref_logps, ratings, valid, beta, reward_temperature)
    # masked below: w of an empty slot reads as 1
    entropy = jnp.exp(log_w) * log_softmax(rewards, valid)
    return -jnp.sum(jnp.where(valid, entropy, 0.0), -1), {"rewards": rewards}


def _rewards(
    logps: Array,
    ref_logps: Array,
    ratings: Array,
    valid: Array,
    beta: float,
    reward_temperature: float,
) -> tuple[Array, Array]:
    """The implicit rewards and log w."""
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(reward_temperature > 0, f"reward_temperature must be > 0, got {reward_temperature}")
    logps, ref_logps, ratings = kept(valid, logps, ref_logps, ratings)
    return beta * (logps - ref_logps), log_softmax(ratings / reward_temperature, valid)
