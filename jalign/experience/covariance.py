"""Experiences that mark tokens by their covariance of log-prob and advantage (Clip-Cov, KL-Cov)."""

from __future__ import annotations

import jax.numpy as jnp

from jalign import advantages as adv
from jalign.experience.relative import relative_to
from jalign.experience.tokens import Fields, Mask, Scores, Tokens, Valid, on_tokens


@relative_to("group", min_responses=2)
def random_high_covariance(
    scores: Scores,
    valid: Valid,
    old_token_logps: Tokens,
    token_uniforms: Tokens,
    mask: Mask,
    *,
    cov_ratio: float = 2e-4,
    cov_low: float = 1.0,
    cov_high: float = 5.0,
) -> Fields:
    """Clip-Cov (https://arxiv.org/abs/2505.22617): as GRPO, and random tokens of high covariance.

    Args:
      cov_ratio: the share of tokens that is marked, at least one, in (0, 1]; 2e-4.
      cov_low, cov_high: bounds of the covariance of those tokens; 1 and 5. Above are outliers.
    """
    advantages = on_tokens(adv.group_normalized(scores, valid), mask)
    bounds = {"low": cov_low, "high": cov_high, "share": cov_ratio}
    x = adv.covariances(old_token_logps, advantages, mask)
    marked = adv.random_between(x, token_uniforms, mask, **bounds)
    return {"advantages": advantages, "high_covariance": marked.astype(jnp.float32)}


@relative_to("group", min_responses=2)
def highest_covariance(
    scores: Scores, valid: Valid, old_token_logps: Tokens, mask: Mask, *, cov_ratio: float = 2e-4
) -> Fields:
    """KL-Cov (https://arxiv.org/abs/2505.22617): as GRPO, and the tokens of highest covariance.

    Args:
      cov_ratio: the share of tokens that is marked, at least one, in (0, 1]; 2e-4.
    """
    advantages = on_tokens(adv.group_normalized(scores, valid), mask)
    # over the rollout: in a micro-batch the share of 2e-4 would be one token of each
    x = adv.covariances(old_token_logps, advantages, mask)
    marked = adv.highest(x, mask, share=cov_ratio)
    return {"advantages": advantages, "high_covariance": marked.astype(jnp.float32)}
