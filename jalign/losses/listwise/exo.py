"""EXO on lists: match the policy to the rewards of K responses; reverse KL, and its forward twin.

Ji et al. 2024, "Towards Efficient Exact Optimization of Language Model Alignment".
https://arxiv.org/abs/2402.00856, EXO-rw and DPO-rw. For pairs: `jalign.losses.pairwise.exo`.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import kept, log_softmax
from jalign.losses._math import require

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B K"]]]


def exo_list(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.1,
    reward_temperature: float = 1.0,
) -> Out:
    """KL(f || q) over the responses, f = softmax(beta * d), q = softmax(ratings / temperature).

    d is the log-ratio to the reference, SUMMED over tokens. The reverse divergence: the policy goes
    to the best responses rather than cover all that are rated well. Its gradient vanishes for a
    response that f has already left.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: rewards; their differences matter, and their scale.
      valid: where there is a response.
      beta: scale of the log-ratio, > 0; 0.1 (beta_pi in the paper).
      reward_temperature: what the rewards are divided by, > 0; 1 (beta_r in the paper).
    Returns:
      The unreduced loss per prompt, >= 0, and beta * d as `rewards` [B, K], 0 where there is no
      response.
    Raises:
      ValueError: a number out of its range.
    Deviations: none from the authors' code. TRL has the pair form only.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(exo_list(*x, beta=0.5)[0][0]), 4)
    0.0711
    """
    log_f, log_q, rewards = _both(logps, ref_logps, ratings, valid, beta, reward_temperature)
    # masked before the sum: `log_softmax` is 0 at an empty slot, and exp of it is 1
    divergence = jnp.where(valid, jnp.exp(log_f) * (log_f - log_q), 0.0)
    return jnp.sum(divergence, -1), {"rewards": rewards}


def dpo_list(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.1,
    reward_temperature: float = 1.0,
) -> Out:
    """-sum_k q_k log f_k, f = softmax(beta * d), q = softmax(ratings / temperature): forward KL.

    What DPO becomes when rewards are known: the cross-entropy of `exo_list`'s two distributions,
    which is KL(q || f) up to a constant. The policy covers all that is rated well. Word for word
    the InfoNCA loss (`jalign.losses.listwise.nca`), under the name and with the numbers of EXO.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: rewards; their differences matter, and their scale.
      valid: where there is a response.
      beta: scale of the log-ratio d, summed over tokens, > 0; 0.1.
      reward_temperature: what the rewards are divided by, > 0; 1. Near 0 only the best counts.
    Returns:
      The unreduced loss per prompt, and beta * d as `rewards` [B, K], 0 where there is no response.
    Raises:
      ValueError: a number out of its range.
    Deviations: none from the authors' code.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(dpo_list(*x, beta=0.5)[0][0]), 4)
    1.1271
    """
    log_f, log_q, rewards = _both(logps, ref_logps, ratings, valid, beta, reward_temperature)
    # likewise: q of an empty slot reads as 1
    return -jnp.sum(jnp.where(valid, jnp.exp(log_q) * log_f, 0.0), -1), {"rewards": rewards}


def _both(
    logps: Array,
    ref_logps: Array,
    ratings: Array,
    valid: Array,
    beta: float,
    reward_temperature: float,
) -> tuple[Array, Array, Array]:
    """log f, log q and the implicit rewards."""
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(reward_temperature > 0, f"reward_temperature must be > 0, got {reward_temperature}")
    # replaced first: one NaN of an empty slot would spread through the softmax of its list
    logps, ref_logps, ratings = kept(valid, logps, ref_logps, ratings)
    rewards = beta * (logps - ref_logps)
    return log_softmax(rewards, valid), log_softmax(ratings / reward_temperature, valid), rewards
