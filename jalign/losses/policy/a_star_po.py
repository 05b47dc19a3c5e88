"""A*-PO: regression of the optimal advantage, with one response of the policy per prompt.

Brantley et al. 2025, "Accelerating RL for LLM Reasoning with Optimal Advantage Regression".
https://arxiv.org/abs/2505.20686, Algorithm 1.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import of_response, recorded, scored

Tokens = Float[Array, "B R"]


def a_star_po(
    token_logps: Tokens,
    ref_token_logps: Tokens,
    advantages: Tokens,
    mask: Bool[Array, "B R"],
    *,
    beta2: float = 1e-3,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """(beta2 log(p / p_ref)(response) - A)^2, A = reward - V*.

    V* is the value of the optimal policy of the KL-regularized objective, estimated from samples of
    the reference (`jalign.experience.optimal_advantage`); there beta2 log(p* / p_ref) is r - V*.

    Args:
      token_logps: log p of each scored token, nats.
      ref_token_logps: the same under the reference; no gradient.
      advantages: A of the response at its tokens; the first one is read. No gradient.
      mask: scored positions; values elsewhere are ignored.
      beta2: weight of the KL divergence, > 0; 1e-3.
    Returns:
      The unreduced loss per response, and beta2 log(p / p_ref) as `implicit_advantage`.
    Raises:
      ValueError: beta2 <= 0.
    Deviations: none in the loss; as in the authors' code V* has a beta of its own.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> a_star_po(a(-1.0, -0.5), a(-1.5, -1.0), a(0.25, 0.25), a(True, True), beta2=0.5)[0].tolist()
    [0.0625]
    """
    require(beta2 > 0, f"beta2 must be > 0, got {beta2}")
    (logps,), (ref, a) = scored(mask, token_logps), recorded(mask, ref_token_logps, advantages)
    # of the response, not of a token: the optimum is a statement about responses
    implicit = beta2 * jnp.sum(logps - ref, -1)
    return (implicit - of_response(a, mask)) ** 2, {"implicit_advantage": implicit}
