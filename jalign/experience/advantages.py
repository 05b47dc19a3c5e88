"""Experiences that weigh every response: advantages of tokens, or win rates of responses."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign import advantages as adv
from jalign.experience.relative import relative_to
from jalign.experience.tokens import (
    Fields,
    Mask,
    Scores,
    Tokens,
    Valid,
    gae_fields,
    minus_sequence_kl,
    on_tokens,
    rewards_to_go,
    rows,
    token_rewards,
    whitened,
)


def gae(
    scores: Scores,
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    values: Tokens,
    mask: Mask,
    *,
    kl_coef: float = 0.05,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
) -> Fields:
    """PPO (https://arxiv.org/abs/2203.02155): the score at the last token, -kl_coef * k1 at every
    token, generalized advantage estimation, advantages whitened over the rollout.

    Args:
      kl_coef: weight of the KL divergence to the reference in the reward, per nat; 0.05.
      gamma: discount from token to token, in [0, 1]; 1 is none.
      gae_lambda: weight of rewards (1) against values (0) in the estimate, in [0, 1]; 0.95.
    """
    rewards = token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    return gae_fields(rewards, values, mask, gamma, gae_lambda)


def gae_whitened(
    scores: Scores,
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    values: Tokens,
    mask: Mask,
    *,
    kl_coef: float = 0.05,
    gamma: float = 1.0,
    gae_lambda: float = 0.95,
) -> Fields:
    """`gae` of rewards scaled to a standard deviation of 1, their mean kept (lm-human-preferences,
    https://arxiv.org/abs/1909.08593).

    Args:
      kl_coef: weight of the KL divergence in the reward, per nat, before rewards are scaled; 0.05.
      gamma, gae_lambda: as in `gae`.
    """
    rewards = token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    # the mean stays: shifted, every reward would change its sign with the batch
    scaled = whitened(rewards, mask, shift_mean=False)
    return gae_fields(scaled, values, mask, gamma, gae_lambda)


def gae_length_adaptive(
    scores: Scores,
    values: Tokens,
    mask: Mask,
    *,
    gamma: float = 1.0,
    length_alpha: float = 0.05,
) -> Fields:
    """VAPO (https://arxiv.org/abs/2504.05118): the score at the last token, returns with lambda 1
    for the critic, and advantages with lambda = 1 - 1 / (length_alpha * length) of the response,
    whitened over the rollout; responses with a score above 0 are marked as correct.

    Args:
      gamma: as in `gae`.
      length_alpha: a score reaches back over length_alpha * length tokens, > 0; 0.05. Responses of
        at most 1 / length_alpha tokens have lambda 0.
    """
    flat, lengths = rows(mask), mask.sum(-1).reshape(-1)
    rewards = adv.token_rewards(scores.reshape(-1), jnp.zeros(flat.shape), flat, kl_coef=0.0)
    # unbiased for the critic; for the policy the variance of long responses is bounded
    _, returns = adv.gae(rewards, rows(values), flat, gamma=gamma, lam=1.0)
    lam = adv.length_adaptive_lambda(lengths, alpha=length_alpha)
    advantages, _ = adv.gae(rewards, rows(values), flat, gamma=gamma, lam=lam)
    return {
        "advantages": adv.whiten(advantages, flat).reshape(mask.shape),
        "returns": returns.reshape(mask.shape),
        "correct": (scores > 0).astype(jnp.float32),
    }


def returns_minus_value(
    scores: Scores,
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    values: Tokens,
    mask: Mask,
    *,
    kl_coef: float = 0.05,
    gamma: float = 1.0,
) -> Fields:
    """REINFORCE with a learned baseline: rewards to go minus the critic's value
    (https://arxiv.org/abs/2309.00267, appendix A.3).

    Args:
      kl_coef, gamma: as in `gae`.
    """
    rewards = token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    returns = rewards_to_go(rewards, mask, gamma)
    # `values` is garbage outside of the mask, and so is the difference
    return {"advantages": jnp.where(mask, returns - values, 0.0), "returns": returns}


def returns_whitened(
    scores: Scores,
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    mask: Mask,
    *,
    kl_coef: float = 0.01,
    gamma: float = 1.0,
) -> Fields:
    """REINFORCE++ (https://arxiv.org/abs/2501.03262): rewards to go, whitened over all tokens of
    the rollout.

    Args:
      kl_coef: weight of the KL divergence to the reference in the reward, per nat; 0.01.
      gamma: as in `gae`.
    """
    rewards = token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    returns = rewards_to_go(rewards, mask, gamma)
    # over the rollout, not a micro-batch: there would be another scale in each of them
    return {"advantages": whitened(returns, mask)}


def minus_greedy(
    scores: Scores,
    greedy_scores: Float[Array, "B"],
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    mask: Mask,
    *,
    kl_coef: float = 0.05,
    gamma: float = 1.0,
) -> Fields:
    """ReMax (https://arxiv.org/abs/2310.10505): rewards to go minus the score of the most probable
    response.

    Args:
      kl_coef, gamma: as in `gae`.
    """
    rewards = token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    returns = rewards_to_go(rewards, mask, gamma)
    # the greedy response's score has no KL in it: a baseline may be any number of the prompt
    return {"advantages": jnp.where(mask, returns - greedy_scores[:, None, None], 0.0)}


@relative_to("rollout")
def returns_minus_batch_mean(
    scores: Scores,
    valid: Valid,
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    mask: Mask,
    *,
    kl_coef: float = 0.05,
) -> Fields:
    """REINFORCE: the score minus kl_coef times the KL of the response, minus the mean of that over
    the rollout.

    Args:
      kl_coef: as in `gae`.
    """
    # the KL is in the reward, so its baseline is taken of both together
    total = minus_sequence_kl(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    return {"advantages": on_tokens(adv.batch_centred(total, valid), mask)}


@relative_to("group", min_responses=2)
def leave_one_out(
    scores: Scores,
    valid: Valid,
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    mask: Mask,
    *,
    kl_coef: float = 0.05,
) -> Fields:
    """RLOO (https://arxiv.org/abs/2402.14740): the score minus kl_coef times the KL of the
    response, minus the mean of that over the other responses to the prompt.

    Args:
      kl_coef: as in `gae`.
    """
    total = minus_sequence_kl(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    return {"advantages": on_tokens(adv.leave_one_out(total, valid), mask)}


@relative_to("group", min_responses=2)
def group_mean_whitened(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """REINFORCE++ with a baseline: the score minus the mean of its group, whitened over all tokens
    of the rollout; the KL term is the loss's.
    """
    # group mean first: whitening alone would favor the prompts that are easy
    return {"advantages": whitened(on_tokens(adv.group_centred(scores, valid), mask), mask)}


@relative_to("group", min_responses=2)
def group_normalized(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """GRPO (https://arxiv.org/abs/2402.03300): (score - mean of the group) / its deviation."""
    return {"advantages": on_tokens(adv.group_normalized(scores, valid), mask)}


@relative_to("group", min_responses=2)
def group_centred(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """Dr. GRPO (https://arxiv.org/abs/2503.20783): score - mean of the group."""
    return {"advantages": on_tokens(adv.group_centred(scores, valid), mask)}


@relative_to("group", min_responses=2)
def informative_groups(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """DAPO (https://arxiv.org/abs/2503.14476): as GRPO; groups whose scores are all equal are left
    out (dynamic sampling).
    """
    # equal scores have advantage 0, but their tokens would still count in the mean over tokens
    keep = adv.informative_groups(scores, valid)
    return {"advantages": on_tokens(adv.group_normalized(scores, valid), mask), "keep": keep}


def steps_normalized(step_scores: Tokens, mask: Mask) -> Fields:
    """GRPO with process supervision (https://arxiv.org/abs/2402.03300, section 4.1.3): the sum of
    the scores of the steps that end at a token or after it, normalized over all steps of the
    group.
    """
    # NaN marks tokens that end no step: 0 is a legitimate score
    ends = mask & ~jnp.isnan(step_scores)
    return {"advantages": jnp.where(mask, adv.process_advantages(step_scores, ends), 0.0)}


@relative_to("group", min_responses=2)
def win_rate_leave_one_out(
    win_probs: Float[Array, "B K K"],
    valid: Valid,
    old_token_logps: Tokens,
    ref_token_logps: Tokens,
    mask: Mask,
    *,
    kl_coef: float = 0.05,
) -> Fields:
    """SPO (https://arxiv.org/abs/2401.04056): the reward of a response is how often it is preferred
    to the other responses to its prompt; then as RLOO.

    Args:
      kl_coef: as in `gae`; win rates are at most 1, so 0.05 holds more than beside larger scores.
    """
    rates = adv.win_rates_over_others(win_probs)
    total = minus_sequence_kl(rates, old_token_logps, ref_token_logps, mask, kl_coef)
    return {"advantages": on_tokens(adv.leave_one_out(total, valid), mask)}


@relative_to("group", min_responses=2)
def win_rates_over_others(win_probs: Float[Array, "B K K"]) -> Fields:
    """MPO (https://arxiv.org/abs/2410.16714): each response with its mean probability to win
    against the others, which are as many opponents drawn from the policy itself.
    """
    # itself at 1/2 would be an opponent that depends on the response
    return {"win_prob": adv.win_rates_over_others(win_probs)}


@relative_to("group", min_responses=2)
def win_rates(win_probs: Float[Array, "B K K"]) -> Fields:
    """SPPO (https://arxiv.org/abs/2405.00675): each response with its mean win probability over all
    K, itself included as 1/2.
    """
    return {"win_prob": adv.win_rates(win_probs)}
