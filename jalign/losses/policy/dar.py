"""DAR: dual-regularized advantage regression, RLHF as a weighted SFT loss.

He et al. 2026, "Unifying Stable Optimization and Reference Regularization in RLHF".
https://arxiv.org/abs/2602.11523, Proposition 4.1 and Theorem 4.2.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import of_response, recorded, scored

Tokens = Float[Array, "B R"]


def dar(
    token_logps: Tokens,
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    advantages: Tokens,
    mask: Bool[Array, "B R"],
    *,
    alpha: float = 0.1,
    beta: float = 0.05,
    weight_max: float = 20.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-min((p_ref / p_old)^alpha exp(A / beta), weight_max) log p(response).

    The maximum of E[A] - beta (alpha KL(p || p_ref) + (1 - alpha) KL(p || p_old)) is
    p_ref^alpha p_old^(1 - alpha) exp(A / beta) / C, and the loss fits p to it by the likelihood of
    samples of p_old. No ratio of the trained policy occurs, so nothing is clipped but the weight.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      ref_token_logps: the same under the reference; no gradient.
      advantages: A of the response at its tokens, in units of the deviation of the batch's scores;
        the first one is read. No gradient.
      mask: scored positions; values elsewhere are ignored.
      alpha: share of the KL to the reference, in [0, 1]; 0.1.
      beta: weight of both KL terms, > 0; 0.05.
      weight_max: the largest weight of a response, > 0; 20.
    Returns:
      The unreduced loss per response; its weight as `weight`; where weight_max holds as
      `clip_ratio/high_mean`.
    Raises:
      ValueError: a number out of its range.
    Deviations: none known; the constants are the paper's.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -0.5), a(-1.0, -1.0), a(-1.0, -1.0), a(0.0, 0.0), a(True, True)
    >>> dar(*x)[0].tolist()
    [1.5]
    """
    require(0 <= alpha <= 1, f"alpha must be in [0, 1], got {alpha}")
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(weight_max > 0, f"weight_max must be > 0, got {weight_max}")
    (logps,) = scored(mask, token_logps)
    old, ref, a = recorded(mask, old_token_logps, ref_token_logps, advantages)
    # of the old policy, not the trained one: the weight of a response stays as it was sampled
    log_weight = alpha * jnp.sum(ref - old, -1) + of_response(a, mask) / beta
    # the bound is applied to the logarithm, which cannot overflow
    weight = jax.lax.stop_gradient(jnp.exp(jnp.minimum(log_weight, jnp.log(weight_max))))
    at_bound = (log_weight > jnp.log(weight_max)).astype(jnp.float32)
    return -weight * jnp.sum(logps, -1), {"weight": weight, "clip_ratio/high_mean": at_bound}
