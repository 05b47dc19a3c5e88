"""Supervised fine-tuning, alone and as a term beside a preference loss."""

from jax import Array
from jaxtyping import Float

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
      The unreduced loss [B, R] and no metrics. Unscored places hold garbage: mask them.
    >>> import jax.numpy as jnp
    >>> sft(jnp.array([[-1.0, -0.5]]))[0].tolist()
    [[1.0, 0.5]]
    """
    (token_logps,) = f32(token_logps)
    return -token_logps, {}


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
    loss = -chosen_logps / chosen_len
    return loss, {"nll_loss": loss}
