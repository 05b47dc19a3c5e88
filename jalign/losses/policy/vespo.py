"""VESPO: variational sequence-level soft policy optimization.

Shen et al. 2026, "VESPO: Variational Sequence-Level Soft Policy Optimization".
https://arxiv.org/abs/2602.10693.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import LIMIT, approx_kl, bounded, log_ratios, recorded, scored

Tokens = Float[Array, "B R"]

LOWEST = math.log(1e-8)  # of log W, the bound of the authors' code and of TRL


def vespo(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Bool[Array, "B R"],
    *,
    k_pos: float = 2.0,
    lambda_pos: float = 3.0,
    k_neg: float = 3.0,
    lambda_neg: float = 2.0,
) -> tuple[Tokens, dict[str, Tokens]]:
    """-stop_gradient(phi(W)) A log p(token), phi(W) = W^k exp(lambda (1 - W)).

    W = p(response) / p_old(response) is the product of its tokens' ratios, neither clipped nor
    divided by the length. phi is 1 at W = 1 and goes to 0 on both sides: a response that the
    policy has left, or drawn far up, no longer counts.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A, no gradient; its sign chooses k and lambda.
      mask: scored positions; values elsewhere are ignored.
      k_pos, lambda_pos: of phi where A >= 0, > 0; 2 and 3.
      k_neg, lambda_neg: of phi where A < 0, > 0; 3 and 2.
    Returns:
      The unreduced loss, 0 at unscored positions; phi as `phi`; rho of the token as `ratio`;
      `approx_kl` as in `ppo_clip`.
    Raises:
      ValueError: a number <= 0.
    Deviations: as in TRL, log rho is clamped to +-20 and log W to [log 1e-8, 20]. TRL multiplies W
      by the ratio of trainer and sampler, too; here `corrected` multiplies the loss with it.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> vespo(a(-1.0, -2.0), a(-1.5, -1.5), a(3.0, -1.0), a(True, True))[0].tolist()
    [[3.0, -2.0]]
    """
    shapes = {"k_pos": k_pos, "lambda_pos": lambda_pos, "k_neg": k_neg, "lambda_neg": lambda_neg}
    for name, x in shapes.items():
        require(x > 0, f"{name} must be > 0, got {x}")
    (logps,), (a,) = scored(mask, token_logps), recorded(mask, advantages)
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    # a sum over the response, not a mean: W is the ratio itself
    log_w = jnp.clip(jnp.sum(bounded(log_ratio), -1, keepdims=True), LOWEST, LIMIT)
    k, rate = jnp.where(a >= 0, k_pos, k_neg), jnp.where(a >= 0, lambda_pos, lambda_neg)
    # in the exponent: W^k alone overflows where exp(-lambda W) is 0
    phi = jax.lax.stop_gradient(jnp.exp(k * log_w + rate * (1 - jnp.exp(log_w))))
    return -phi * a * logps, {
        "phi": phi,
        "ratio": jnp.exp(bounded(log_ratio)),
        "approx_kl": approx_kl(log_ratio),
    }
