"""What each online method makes of scored samples: pure functions from a rollout to fields.

A function reads arrays of a rollout by the names of its positional parameters (`core.ROLLOUT`) and
returns data fields of its format, and perhaps `take` [B, k], which responses become the example,
and `keep` [B], which prompts do. Keyword-only numbers are hyper-parameters of the algorithm.

Letters: B prompts, K responses per prompt, R tokens per response. Log-probs and KL are in nats. The
log-probs are those of the policy that sampled, so log p - log p_ref (k1) is an unbiased estimate of
the KL divergence, and its sum over a response is the KL of the response.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign import advantages as adv
from jalign.core.experience import Relative

Scores = Float[Array, "B K"]
Valid = Bool[Array, "B K"]
Tokens = Float[Array, "B K R"]
Mask = Bool[Array, "B K R"]
Fields = dict[str, Any]
ExperienceFn = TypeVar("ExperienceFn", bound=Callable[..., Fields])


def relative_to(
    to: Literal["group", "rollout"], min_responses: int = 1
) -> Callable[[ExperienceFn], ExperienceFn]:
    """Mark a function as `Relative`: how it compares scores."""

    def mark(fn: ExperienceFn) -> ExperienceFn:
        fn.relative = Relative(to, min_responses)  # type: ignore[attr-defined]
        return fn

    return mark


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
    token, generalised advantage estimation, advantages whitened over the rollout.

    Args:
      kl_coef: weight of the KL divergence to the reference in the reward, per nat; 0.05.
      gamma: discount from token to token, in [0, 1]; 1 is none.
      gae_lambda: how far rewards are looked at (1) rather than values (0), in [0, 1]; 0.95.
    """
    rewards = _token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    return _gae(rewards, values, mask, gamma, gae_lambda)


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
    rewards = _token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    flat = adv.whiten(_rows(rewards), _rows(mask), shift_mean=False)
    return _gae(flat.reshape(rewards.shape), values, mask, gamma, gae_lambda)


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
    rewards = _token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    returns = _to_go(rewards, mask, gamma)
    return {"advantages": jnp.where(mask, returns - values, 0.0), "returns": returns}


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
    total = scores - kl_coef * _sequence_kl(old_token_logps, ref_token_logps, mask)
    return {"advantages": _spread(adv.batch_centred(total, valid), mask)}


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
    rewards = _token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    returns = _to_go(rewards, mask, gamma)
    return {"advantages": _whitened(returns, mask)}


@relative_to("group", min_responses=2)
def group_mean_whitened(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """REINFORCE++ with a baseline: the score minus the mean of its group, whitened over all tokens
    of the rollout; the KL term is the loss's.
    """
    return {"advantages": _whitened(_spread(adv.group_centred(scores, valid), mask), mask)}


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
    total = scores - kl_coef * _sequence_kl(old_token_logps, ref_token_logps, mask)
    return {"advantages": _spread(adv.leave_one_out(total, valid), mask)}


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
    rewards = _token_rewards(scores, old_token_logps, ref_token_logps, mask, kl_coef)
    returns = _to_go(rewards, mask, gamma)
    return {"advantages": jnp.where(mask, returns - greedy_scores[:, None, None], 0.0)}


@relative_to("group", min_responses=2)
def group_normalized(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """GRPO (https://arxiv.org/abs/2402.03300): (score - mean of the group) / its deviation."""
    return {"advantages": _spread(adv.group_normalized(scores, valid), mask)}


@relative_to("group", min_responses=2)
def group_centred(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """Dr. GRPO (https://arxiv.org/abs/2503.20783): score - mean of the group."""
    return {"advantages": _spread(adv.group_centred(scores, valid), mask)}


@relative_to("group", min_responses=2)
def informative_groups(scores: Scores, valid: Valid, mask: Mask) -> Fields:
    """DAPO (https://arxiv.org/abs/2503.14476): as GRPO; groups whose scores are all equal are left
    out (dynamic sampling).
    """
    keep = adv.informative_groups(scores, valid)
    return {"advantages": _spread(adv.group_normalized(scores, valid), mask), "keep": keep}


def steps_normalized(step_scores: Tokens, mask: Mask) -> Fields:
    """GRPO with process supervision (https://arxiv.org/abs/2402.03300, section 4.1.3): the sum of
    the scores of the steps that end at a token or after it, normalised over all steps of the
    group.
    """
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
    total = rates - kl_coef * _sequence_kl(old_token_logps, ref_token_logps, mask)
    return {"advantages": _spread(adv.leave_one_out(total, valid), mask)}


@relative_to("group", min_responses=2)
def win_rates(win_probs: Float[Array, "B K K"]) -> Fields:
    """SPPO (https://arxiv.org/abs/2405.00675): each response with its mean win probability over all
    K, itself included as 1/2.
    """
    return {"win_prob": adv.win_rates(win_probs)}


def against_last(win_probs: Float[Array, "B K K"]) -> Fields:
    """Nash-MD (https://arxiv.org/abs/2312.00886): the first response with its probability to win
    against the last one, which is not learnt from.
    """
    won = jnp.nan_to_num(win_probs[:, :1, -1], nan=0.5)  # where that is not known it is not valid
    return {"win_prob": won, "take": _numbers(win_probs, 1)}


@relative_to("group", min_responses=2)
def best_and_worst(scores: Scores, valid: Valid) -> Fields:
    """Online DPO (https://arxiv.org/abs/2402.04792): the best response is chosen, the worst
    rejected; a prompt whose scores are all equal teaches nothing.
    """
    best, worst, differ = adv.best_and_worst(scores, valid)
    return {"take": jnp.stack([best, worst], -1), "keep": differ}


@relative_to("group", min_responses=2)
def best_and_worst_with_origin(scores: Scores, valid: Valid) -> Fields:
    """XPO (https://arxiv.org/abs/2405.21046): as `best_and_worst`, and whether the chosen response
    was drawn from the reference, which wrote the last one.
    """
    fields = best_and_worst(scores, valid)
    from_reference = fields["take"][:, 0] == scores.shape[1] - 1
    return fields | {"ref_response": from_reference.astype(jnp.float32)}


@relative_to("group", min_responses=2)
def best_and_worst_win_rate(
    win_probs: Float[Array, "B K K"], valid: Valid, *, least_margin: float = 0.0
) -> Fields:
    """DNO-Prct (https://arxiv.org/abs/2404.03715): the response that wins most against the others
    and the one that wins least, where their win rates differ by more than `least_margin`.

    Args:
      least_margin: prompts whose win rates differ by no more are left out, in [0, 1); 0.
    """
    rates = adv.win_rates_over_others(win_probs)
    best, worst, differ = adv.best_and_worst(rates, valid)
    take = jnp.stack([best, worst], -1)
    high, low = jnp.take_along_axis(rates, take, -1).T
    return {"take": take, "keep": differ & (high - low > least_margin)}


def data_against_sample(valid: Valid) -> Fields:
    """SPIN (https://arxiv.org/abs/2401.01335): the data's response, which is the last, is chosen,
    the policy's own rejected.
    """
    last = jnp.full(valid.shape[:1], valid.shape[1] - 1)
    return {"take": jnp.stack([last, jnp.zeros_like(last)], -1), "keep": valid[:, 0] & valid[:, -1]}


@relative_to("group")
def best(scores: Scores, valid: Valid) -> Fields:
    """RAFT (https://arxiv.org/abs/2304.06767), best-of-n: the best response to each prompt."""
    chosen, _, _ = adv.best_and_worst(scores, valid)
    return {"take": chosen[:, None], "keep": valid.any(-1)}


@relative_to("rollout")
def top_share(scores: Scores, valid: Valid, *, alpha: float = 0.2) -> Fields:
    """RAFT's other selection (https://arxiv.org/abs/2304.06767): of the whole rollout the share
    alpha of responses with the highest scores. Of several to a prompt only the best is a candidate.

    Args:
      alpha: share of the rollout that is learnt from, in (0, 1]; 0.2.
    """
    fields = best(scores, valid)
    highest = jnp.take_along_axis(scores, fields["take"], -1)[:, 0]
    return fields | {"keep": adv.top_share(highest, fields["keep"], alpha=alpha)}


@relative_to("group")  # that it accepts two is asked for there
def rejection_sampled(
    scores: Scores, valid: Valid, uniforms: Float[Array, "B K K"], *, rejection_beta: float = 0.5
) -> Fields:
    """RSO (https://arxiv.org/abs/2309.06657): the first two responses that statistical rejection
    sampling with the temperature `rejection_beta` of the scores accepts; the one with the higher
    score is chosen, and two of equal scores teach nothing. The paper accepts 8 of 64 responses of
    the model that training starts from and makes four pairs of them.

    Args:
      rejection_beta: temperature of the scores in the acceptance probability, > 0; 0.5. Near 0 the
        best are taken, at infinity the first.
    """
    take, enough = adv.statistical_rejection(scores, valid, uniforms, beta=rejection_beta, accept=2)
    first, second = jnp.take_along_axis(scores, take, -1).T
    better_first = jnp.where((first >= second)[:, None], take, take[:, ::-1])
    return {"take": better_first, "keep": enough & (first != second)}


def everything(valid: Valid) -> Fields:
    """On-policy distillation (https://arxiv.org/abs/2306.13649): every response, unjudged."""
    return {"keep": valid.any(-1)}


def _numbers(x: Array, k: int) -> Array:
    return jnp.broadcast_to(jnp.arange(k), (x.shape[0], k))


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def _spread(x: Scores, mask: Mask) -> Tokens:
    """The same advantage at every token of a response."""
    return jnp.where(mask, jnp.nan_to_num(x)[..., None], 0.0)


def _sequence_kl(logps: Tokens, ref: Tokens, mask: Mask) -> Scores:
    return jnp.where(mask, logps - ref, 0.0).sum(-1)


def _token_rewards(
    scores: Scores, logps: Tokens, ref: Tokens, mask: Mask, kl_coef: float
) -> Tokens:
    k1 = jnp.where(mask, logps - ref, 0.0)
    flat = adv.token_rewards(scores.reshape(-1), _rows(k1), _rows(mask), kl_coef=kl_coef)
    return flat.reshape(mask.shape)


def _to_go(rewards: Tokens, mask: Mask, gamma: float) -> Tokens:
    return adv.rewards_to_go(_rows(rewards), _rows(mask), gamma=gamma).reshape(mask.shape)


def _whitened(x: Tokens, mask: Mask) -> Tokens:
    return adv.whiten(_rows(x), _rows(mask), shift_mean=True).reshape(mask.shape)


def _gae(rewards: Tokens, values: Tokens, mask: Mask, gamma: float, gae_lambda: float) -> Fields:
    found, returns = adv.gae(
        _rows(rewards), _rows(values), _rows(mask), gamma=gamma, lam=gae_lambda
    )
    return {
        "advantages": adv.whiten(found, _rows(mask), shift_mean=True).reshape(mask.shape),
        "returns": returns.reshape(mask.shape),
        "old_values": jnp.where(mask, values, 0.0),
    }
