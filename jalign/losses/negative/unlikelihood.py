"""Unlikelihood training on the tokens of responses to avoid.

Welleck et al. 2019, "Neural Text Generation with Unlikelihood Training".
https://arxiv.org/abs/1908.04319; the sequence-level form with every token a negative candidate.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, log1mexp


def unlikelihood(
    rejected_token_logps: Float[Array, "B R"], rejected_mask: Bool[Array, "B R"]
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-sum_t log(1 - p_t) over the tokens of the rejected response.

    Near 0 for tokens that are unlikely already; its gradient by log p_t, p_t / (1 - p_t), is
    largest for the most probable ones. Nothing preserves fluency: the paper adds the NLL of
    positive text (`losses.nll`).

    Args:
      rejected_token_logps: log-probability of each token, nats, <= 0.
      rejected_mask: where there is a token.
    Returns:
      The unreduced loss, summed over tokens (a longer response counts more), and no metrics.
    Deviations: the paper's negatives are repeated or chosen tokens; here all tokens of the response
      are. log p_t counts as at most -1e-7, where 1 - p is still a float32; the gradient there is
      the one at -1e-7 (not 0, which would spare the tokens that need it most).
    >>> import jax.numpy as jnp
    >>> logps, mask = jnp.log(jnp.array([[0.5, 0.2, 0.9]])), jnp.array([[True, True, False]])
    >>> round(float(unlikelihood(logps, mask)[0][0]), 4)  # -log 0.5 - log 0.8
    0.9163
    """
    (logps,) = f32(rejected_token_logps)
    # -1, not 0: log(1 - exp(0)) is -inf, and its gradient NaN even under a mask
    logps = jnp.where(rejected_mask, logps, -1.0)
    # only the value is capped: minimum has no gradient at p = 1, where p must fall most
    capped = logps + jax.lax.stop_gradient(jnp.minimum(logps, -1e-7) - logps)
    return -jnp.sum(jnp.where(rejected_mask, log1mexp(capped), 0.0), -1), {}
