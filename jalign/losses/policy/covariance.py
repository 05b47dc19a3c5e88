"""Clip-Cov and KL-Cov: the few tokens that make the entropy collapse are held.

Cui et al. 2025, "The Entropy Mechanism of Reinforcement Learning for Reasoning Language Models".
https://arxiv.org/abs/2505.22617, section 4.

To first order the entropy falls by the covariance of log-prob and advantage, which a few tokens
dominate: (log p(token) - mean) (A - mean), means over the rollout. The experience marks them
(`jalign.experience.random_high_covariance`, `highest_covariance`).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import approx_kl, bounded, log_ratios, recorded
from jalign.losses.policy.ppo import ppo_clip

Tokens = Float[Array, "B R"]
Mask = Bool[Array, "B R"]
Out = tuple[Tokens, dict[str, Tokens]]


def clip_cov(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    high_covariance: Tokens,
    mask: Mask,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Out:
    """`ppo_clip`, and 0 at marked tokens.

    Args:
      token_logps, old_token_logps, advantages, mask: as in `ppo_clip`.
      high_covariance: 1 at marked tokens, else 0.
      clip_low, clip_high: as in `ppo_clip`.
    Returns:
      The unreduced loss; the metrics of `ppo_clip`, and the marks as `high_covariance`.
    Raises:
      ValueError: a bound <= 0.
    Deviations: tokens are marked once per rollout, by the log-probs of the policy that sampled; the
      authors' code marks them in every micro-batch by those of the policy, so that the two agree
      in the first step. There, tokens that the clip holds are not marked.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.0, -2.0), a(2.0, 3.0), a(0.0, 1.0), a(True, True)
    >>> clip_cov(*x)[0].tolist()
    [[-2.0, 0.0]]
    """
    clips = {"clip_low": clip_low, "clip_high": clip_high}
    loss, metrics = ppo_clip(token_logps, old_token_logps, advantages, mask, **clips)
    (held,) = recorded(mask, high_covariance)
    # a where, so that the marked tokens have no gradient at all
    return jnp.where(held > 0, 0.0, loss), metrics | {"high_covariance": held}


def kl_cov(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    high_covariance: Tokens,
    mask: Mask,
    *,
    cov_kl_coef: float = 1.0,
) -> Out:
    """-A rho, plus cov_kl_coef |log rho| at marked tokens, rho = p(token) / p_old(token).

    Args:
      token_logps, old_token_logps, advantages, mask, high_covariance: as in `clip_cov`.
      cov_kl_coef: weight of the penalty at marked tokens, >= 0; 1.
    Returns:
      The unreduced loss; rho as `ratio`, `approx_kl` as in `ppo_clip`, the marks.
    Raises:
      ValueError: cov_kl_coef < 0.
    Deviations: marks as in `clip_cov`; log rho is clamped to +-20 in rho. As in the authors' code
      the penalty is |log rho|, whose gradient at rho = 1 is 0 here.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -1.5), a(-1.0, -1.0), a(2.0, 0.0), a(0.0, 1.0), a(True, True)
    >>> kl_cov(*x)[0].tolist()
    [[-2.0, 0.5]]
    """
    require(cov_kl_coef >= 0, f"cov_kl_coef must be >= 0, got {cov_kl_coef}")
    a, held = recorded(mask, advantages, high_covariance)
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    ratio = jnp.exp(bounded(log_ratio))
    # no clip: the penalty alone holds, and only where the entropy would fall
    return -a * ratio + cov_kl_coef * held * jnp.abs(log_ratio), {
        "ratio": ratio,
        "approx_kl": approx_kl(log_ratio),
        "high_covariance": held,
    }
