"""RePO: preference optimization with a rectifier in the place of the log-sigmoid.

Wu et al. 2025, "RePO: ReLU-based Preference Optimization". https://arxiv.org/abs/2503.07426.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def repo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    *,
    gamma: float = 0.4,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """max(0, gamma - (mean chosen - mean rejected)), the limit of SimPO for a large beta.

    The mean is that of the log-probabilities of a response's tokens. A pair whose margin exceeds
    gamma has no gradient; every other pair has the same.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens, EOS included.
      chosen_len, rejected_len: scored tokens, >= 1.
      gamma: margin after which a pair teaches nothing, nats per token, >= 0; 0.4 to 0.6 in the
        authors' configs. It is SimPO's gamma / beta.
    Returns:
      The unreduced loss, and the mean log-probabilities as `chosen_rewards`, `rejected_rewards`.
    Raises:
      ValueError: gamma < 0.
    Deviations: none. The authors' code multiplies the reported rewards by SimPO's beta.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -3.75, 4.0, 3.0)]
    >>> round(float(repo(*x)[0][0]), 4)
    0.15
    """
    require(gamma >= 0, f"gamma must be >= 0, got {gamma}")
    chosen, rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, chosen_len, rejected_len
    )
    chosen_rewards, rejected_rewards = chosen / n_chosen, rejected / n_rejected
    # the gradient at the kink is 0: a pair exactly at the margin has learned enough
    loss = jax.nn.relu(gamma - (chosen_rewards - rejected_rewards))
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
