"""Experiences that differ in the baseline and the scale of the advantages, without a critic."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign import advantages as adv
from jalign.experience.relative import relative_to
from jalign.experience.tokens import Fields, Mask, Scores, Tokens, Valid, on_tokens


@relative_to(None, min_responses=2)
def maxrl(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """MaxRL (https://arxiv.org/abs/2602.02710): (score - mean of the group) / mean of the group."""
    return {"advantages": on_tokens(adv.maxrl(scores, valid), mask)}


@relative_to("group", min_responses=2)
def opo(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """OPO (https://arxiv.org/abs/2505.23585): the score minus the mean of the group weighted by
    length.
    """
    return {"advantages": on_tokens(adv.opo(scores, mask.sum(-1), valid), mask)}


@relative_to("group", min_responses=2)
def pass_at_k(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """Pass@k training (https://arxiv.org/abs/2503.19595): the best response alone is learned from,
    by how far it is above the second.
    """
    return {"advantages": on_tokens(adv.pass_at_k(scores, valid), mask)}


# the deviation is that of the rollout: scores without their groups' means have a smaller one
@relative_to("rollout", min_responses=2)
def lite_ppo(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """Lite PPO (https://arxiv.org/abs/2508.08221): (score - mean of the group) / deviation of the
    rollout.
    """
    return {"advantages": on_tokens(adv.lite_ppo(scores, valid), mask)}


@relative_to("group", min_responses=2)
def gdpo(
    reward_parts: Float[Array, "B K N"],
    reward_weights: Float[Array, "N"],
    valid: Valid,
    mask: Mask,
) -> Fields:
    """GDPO (https://arxiv.org/abs/2601.05242): each reward normalized within its group, weighted,
    summed, and normalized over the rollout.
    """
    # equal groups are 0 and not left out: their tokens count in the mean, as in TRL
    total = adv.gdpo(reward_parts, reward_weights, valid)
    return {"advantages": on_tokens(total, mask)}


# not relative: the tokens of a response that outlasts its group keep the score itself
@relative_to(None, min_responses=2)
def otb(
    scores: Scores, old_token_logps: Tokens, old_log_sum_p_squared: Tokens, mask: Mask
) -> Fields:
    """OTB (https://arxiv.org/abs/2602.07078): the score minus the mean of the responses that reach
    a token, weighted by how uncertain they have been up to it.
    """
    return {"advantages": adv.otb(scores, old_token_logps, old_log_sum_p_squared, mask)}


@relative_to("group", min_responses=2)
def optimal_advantage(scores: Scores, valid: Valid, mask: Mask, *, beta1: float = 0.5) -> Fields:
    """A*-PO (https://arxiv.org/abs/2505.20686): the score of the first response, the policy's,
    minus V* = beta1 log mean exp(score / beta1) over the others, which the reference wrote.

    Args:
      beta1: temperature of V*, > 0; 0.5. Near 0 it is the best score, at infinity the mean.
    """
    value = adv.log_mean_exp(scores[:, 1:], valid[:, 1:], beta=beta1)
    # without a sample of the reference there is no V*
    keep = valid[:, 0] & valid[:, 1:].any(-1)
    first = jnp.zeros((scores.shape[0], 1), jnp.int32)
    above = jnp.where(keep, scores[:, 0] - value, 0.0)
    return {"advantages": on_tokens(above[:, None], mask[:, :1]), "take": first, "keep": keep}


@relative_to("group", min_responses=2)
def others_mean(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """The score minus the mean of the other responses to the prompt: `leave_one_out` without a KL
    divergence in the reward.
    """
    return {"advantages": on_tokens(adv.leave_one_out(scores, valid), mask)}
