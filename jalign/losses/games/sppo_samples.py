"""SPPO on every sample: the regression of the paper, where `sppo` takes the best and the worst.

Wu et al. 2024, "Self-Play Preference Optimization for Language Model Alignment".
https://arxiv.org/abs/2405.00675.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._tokens import scored


def sppo_samples(
    token_logps: Float[Array, "B R"],
    ref_token_logps: Float[Array, "B R"],
    win_prob: Float[Array, "B"],
    mask: Bool[Array, "B R"],
    *,
    beta: float = 0.001,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """(d - (P - 1/2) / beta)^2, d = log p(response) - log p_ref(response), SUMMED over tokens.

    Args:
      token_logps: log p of each scored token, nats.
      ref_token_logps: the same under the policy that the responses were drawn from, which stays as
        it is through an iteration: in a run a rollout, of ref_sync_steps optimizer steps.
      win_prob: P, how often the response is preferred to those of that policy: the mean over the K
        responses to its prompt, itself included as 1/2; in [0, 1]. No gradient.
      mask: scored positions; values elsewhere are ignored.
      beta: 1 / eta, > 0; 0.001, that is targets up to 500 nats and losses of about 1e5: use a small
        learning rate.
    Returns:
      The unreduced loss per response, 0 where none is scored, and beta * d, which aims at P - 1/2,
      as `rewards`.
    Raises:
      ValueError: beta <= 0.
    Deviations: none. The authors' code has half of the two squares of a pair (`sppo`).
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.5, -2.5), jnp.array([0.75]), a(True, True)
    >>> sppo_samples(*x, beta=0.125)[0].tolist()  # (1 - 2)^2
    [1.0]
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    logps, ref = scored(mask, token_logps, ref_token_logps)
    (p,) = f32(win_prob)
    d = jnp.sum(logps - ref, -1)
    # an empty slot has d = 0, so its target must be 0 as well
    target = jnp.where(mask.any(-1), jax.lax.stop_gradient(p) - 0.5, 0.0) / beta
    return (d - target) ** 2, {"rewards": beta * d}
