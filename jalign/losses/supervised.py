"""Supervised fine-tuning, alone and as a term beside a preference loss.

`dft`: Wu et al. 2025, "On the Generalization of SFT: A Reinforcement Learning Perspective with
Reward Rectification". https://arxiv.org/abs/2508.05629.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32


def sft(
    token_logps: Float[Array, "B R"],
) -> tuple[Float[Array, "B R"], dict[str, Array]]:
    """-log p(token | what precedes it), one value per scored token.

    The catalogue averages it over all scored tokens of the optimizer step (every token counts
    the same, as in TRL and transformers), so micro-batches of unequal length are exact.

    Args:
      token_logps: log-probability of each scored token, nats, <= 0.
    Returns:
      The unreduced loss [B, R] and no metrics. Unscored positions hold garbage: mask them.
    >>> import jax.numpy as jnp
    >>> sft(jnp.array([[-1.0, -0.5]]))[0].tolist()
    [[1.0, 0.5]]
    """
    (token_logps,) = f32(token_logps)
    # not masked: the reduction ignores entries of weight 0, even if NaN
    return -token_logps, {}


def dft(
    token_logps: Float[Array, "B R"],
) -> tuple[Float[Array, "B R"], dict[str, Array]]:
    """-sg(p(token)) log p(token), one value per scored token: dynamic fine-tuning.

    As a policy gradient SFT rewards a token by 1 / p, most where the model thinks it unlikely. The
    factor sg(p), without gradient, makes that reward 1 for every token, so unlikely tokens no
    longer dominate.

    Args:
      token_logps: log-probability of each scored token, nats, <= 0.
    Returns:
      The unreduced loss [B, R] and no metrics. Unscored positions hold garbage: mask them.
    Deviations: none.
    >>> import jax.numpy as jnp
    >>> [round(x, 4) for x in dft(jnp.array([[-1.0, -0.5]]))[0][0].tolist()]
    [0.3679, 0.3033]
    """
    (token_logps,) = f32(token_logps)
    # stopped: with its gradient the loss would be least at p = 0 as well
    return -jax.lax.stop_gradient(jnp.exp(token_logps)) * token_logps, {}


def nll(
    chosen_logps: Float[Array, "B"], chosen_len: Float[Array, "B"]
) -> tuple[Float[Array, "B"], dict[str, Array]]:
    """-log p(chosen | prompt) / len: the supervised term that ORPO, CPO and RPO add.

    Args:
      chosen_logps: nats, summed over the response.
      chosen_len: scored tokens, >= 1.
    Returns:
      The per-token negative log-likelihood of each chosen response, and it again as `nll_loss`.
      Weighted by `chosen_len` its mean is the token mean over the batch.
    >>> import jax.numpy as jnp
    >>> nll(jnp.array([-6.0]), jnp.array([3.0]))[0].tolist()
    [2.0]
    """
    chosen_logps, chosen_len = f32(chosen_logps, chosen_len)
    # per token here and weighted by chosen_len in the reduction: the mean over chosen tokens
    loss = -chosen_logps / chosen_len
    return loss, {"nll_loss": loss}


def nll_desirable(
    logps: Float[Array, "B"], len: Float[Array, "B"], label: Bool[Array, "B"] | Float[Array, "B"]
) -> tuple[Float[Array, "B"], dict[str, Array]]:
    """-log p(response | prompt) / len where the response is desirable, 0 where it is not.

    Args:
      logps: nats, summed over the response.
      len: scored tokens, >= 1.
      label: True (or above 0.5) where the response is desirable.
    Returns:
      The term, and it again as `nll_loss`.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array(x)
    >>> nll_desirable(a(-6.0, -8.0), a(3.0, 2.0), a(1.0, 0.0))[0].tolist()
    [2.0, 0.0]
    """
    logps, len, label = f32(logps, len, label)
    # a comparison, since labels come from the data as float32
    loss = jnp.where(label > 0.5, -logps / len, 0.0)
    return loss, {"nll_loss": loss}


def nll_best(
    logps: Float[Array, "B K"],
    lens: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
) -> tuple[Float[Array, "B"], dict[str, Array]]:
    """-log p(best | prompt) / len of the response with the highest rating, the first of equals.

    Args:
      logps: nats, summed over each response.
      lens: scored tokens, >= 1.
      ratings: higher is better.
      valid: which of the K slots hold a response.
    Returns:
      One value per prompt, and it again as `nll_loss`.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> nll_best(a(-6.0, -8.0), a(3.0, 2.0), a(0.1, 0.7), a(True, True))[0].tolist()
    [4.0]
    """
    logps, lens, ratings = f32(logps, lens, ratings)
    # -inf, not 0: ratings may be negative, and an empty slot must never be the best
    best = jnp.argmax(jnp.where(valid, ratings, -jnp.inf), -1)[:, None]
    loss = -jnp.take_along_axis(logps / lens, best, -1)[:, 0]
    return loss, {"nll_loss": loss}
