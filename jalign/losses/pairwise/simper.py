"""SimPER: preference optimization by inverse perplexity, without any hyper-parameter.

Xiao et al. 2025, "SimPER: A Minimalist Approach to Preference Alignment without Hyperparameters".
https://arxiv.org/abs/2502.00883.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32


def simper(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-exp(mean chosen) + exp(mean rejected): minus the difference of inverse perplexities.

    The mean is that of the log-probabilities of a response's tokens, so each term lies in (0, 1]
    and its gradient vanishes for responses that the policy never writes.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens, EOS included.
      chosen_len, rejected_len: scored tokens, >= 1.
    Returns:
      The unreduced loss in (-1, 1), and the inverse perplexities as `chosen_rewards`,
      `rejected_rewards`.
    Deviations: none. The authors' code reports the mean log-probabilities as rewards.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, 4.0, 3.0)]
    >>> round(float(simper(*x)[0][0]), 4)
    -0.3181
    """
    chosen, rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, chosen_len, rejected_len
    )
    # of the mean per token: the probability of a whole response would underflow
    chosen_rewards, rejected_rewards = jnp.exp(chosen / n_chosen), jnp.exp(rejected / n_rejected)
    loss = rejected_rewards - chosen_rewards
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
