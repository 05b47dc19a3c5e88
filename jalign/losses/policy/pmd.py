"""PMD: policy mirror descent by regression, the loss of Kimi k1.5 with the mean as its partition.

Xu et al. 2026, "Approximation of Log-Partition Function in Policy Mirror Descent Induces Implicit
Regularization for LLM Post-Training". https://arxiv.org/abs/2602.05933 (PMD-mean); Kimi k1.5,
https://arxiv.org/abs/2501.12599, Eq. 3.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import (
    approx_kl,
    log_ratios,
    mean_of_response,
    of_response,
    recorded,
)

Tokens = Float[Array, "B R"]


def pmd(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Bool[Array, "B R"],
    *,
    tau: float = 0.01,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """(tau / 2) (A / tau - log(p / p_old))^2 / length, p of the whole response.

    The mirror step p_old exp(r / tau) / Z, fitted in log space with tau log Z replaced by the mean
    reward. At p = p_old the gradient is that of -A log p / length; then log(p / p_old) pulls back
    more, the further the policy goes. Where the mean reward is low, steps are smaller than
    those of the exact partition.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A = reward - mean of the other responses to the prompt, at the response's tokens;
        the first one is read. No gradient.
      mask: scored positions; values elsewhere are ignored.
      tau: weight of the KL to the old policy, per nat of the response, > 0; 0.01.
    Returns:
      The unreduced loss per response; log(p / p_old) as `log_ratio`; `approx_kl`, nats per token.
    Raises:
      ValueError: tau <= 0.
    Deviations: scaled by tau / 2 and divided by the length, as in the authors' code; the paper's
      Eq. has the bare square.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> pmd(a(-1.0, -1.5), a(-1.0, -1.0), a(0.5, 0.5), a(True, True), tau=1.0)[0].tolist()
    [0.25]
    """
    require(tau > 0, f"tau must be > 0, got {tau}")
    ratios = log_ratios(token_logps, old_token_logps, mask)
    a, moved = of_response(*recorded(mask, advantages), mask), jnp.sum(ratios, -1)
    # an empty slot divides 0 by 1
    length = jnp.maximum(jnp.sum(mask, -1), 1)
    # (A - tau x)^2 / (2 tau): A / tau is of order 100, whose square loses the small differences
    loss = (a - tau * moved) ** 2 / (2 * tau * length)
    return loss, {"log_ratio": moved, "approx_kl": mean_of_response(approx_kl(ratios), mask)}
