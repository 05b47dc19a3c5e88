"""Experiences of on-policy distillation: the reward of a token is log p_teacher - log p.

Its sum over a response is minus an unbiased estimate of KL(student || teacher), so the policy
gradient of each token's own part descends the reverse KL, without a reward function. The advantage
of a token has no gradient and, as the authors take it, leaves out what comes after.
"""

from __future__ import annotations

import jax.numpy as jnp

from jalign import advantages as adv
from jalign.experience.tokens import Fields, Mask, Tokens, Valid, rows


def reverse_kl(
    old_token_logps: Tokens, ref_token_logps: Tokens, valid: Valid, mask: Mask
) -> Fields:
    """On-policy distillation (https://thinkingmachines.ai/blog/on-policy-distillation/): the
    advantage of a token is log p_teacher - log p. The teacher is the reference.
    """
    return _fields(ref_token_logps, old_token_logps, valid, mask)


def weighted_reverse_kl(
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    valid: Valid,
    mask: Mask,
    *,
    prefix_gamma: float = 0.5,
) -> Fields:
    """IW-OPD (https://arxiv.org/abs/2606.22600): as `reverse_kl`, times a weight that falls with
    the part of the response's difference that lies before the token.

    Args:
      prefix_gamma: how much more the first token of a response weighs than one after all of the
        difference, >= 0; 0.5.
    """
    fields = _fields(ref_token_logps, old_token_logps, valid, mask)
    advantages = fields["advantages"]
    weights = adv.prefix_weights(rows(advantages), rows(mask), prefix_gamma=prefix_gamma)
    return fields | {"advantages": advantages * weights.reshape(mask.shape)}


def self_distilled(
    old_token_logps: Tokens, teacher_token_logps: Tokens, valid: Valid, mask: Mask
) -> Fields:
    """SDFT (https://arxiv.org/abs/2601.19897), SDPO (https://arxiv.org/abs/2601.20802): as
    `reverse_kl`, with the model itself as the teacher, which reads another prompt
    (`Experience.teacher_prompt`).
    """
    return _fields(teacher_token_logps, old_token_logps, valid, mask)


def _fields(teacher: Tokens, old: Tokens, valid: Valid, mask: Mask) -> Fields:
    # `mask` first: log-probs outside of it are garbage in both models
    return {"advantages": jnp.where(mask, teacher - old, 0.0), "keep": valid.any(-1)}
