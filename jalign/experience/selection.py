"""Experiences that select responses: pairs of a better and a worse one, or the best."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign import advantages as adv
from jalign.experience.relative import relative_to
from jalign.experience.tokens import Fields, Scores, Valid


def against_last(win_probs: Float[Array, "B K K"]) -> Fields:
    """Nash-MD (https://arxiv.org/abs/2312.00886): the first response with its probability to win
    against the last one, which is not learned from.
    """
    # an unknown comparison is not valid and so not read; NaN would still reach the gradient
    won = jnp.nan_to_num(win_probs[:, :1, -1], nan=0.5)
    return {"win_prob": won, "take": jnp.zeros((win_probs.shape[0], 1), jnp.int32)}


@relative_to("group")
def pair_against_last(win_probs: Float[Array, "B K K"], valid: Valid) -> Fields:
    """EGPO (https://arxiv.org/abs/2503.08942): the first two responses with their probabilities to
    win against the last one, which is the opponent's and not learned from.
    """
    return _pair(win_probs[:, :2, -1], valid[:, :2])


@relative_to("group")
def optimistic_pair(win_probs: Float[Array, "B K K"], valid: Valid) -> Fields:
    """OMWU (https://arxiv.org/abs/2512.24818): the first two responses with 2 P(y > policy) -
    P(y > last): twice their mean probability to win against the policy's others, minus that against
    the last response, which the policy of the iteration before wrote.
    """
    # neither of the pair: compared with itself a response would be its own opponent
    against_policy = win_probs[:, :2, 2:-1].mean(-1)
    return _pair(2 * against_policy - win_probs[:, :2, -1], valid[:, :2])


def _pair(rates: Float[Array, "B 2"], valid: Valid) -> Fields:
    """Both responses, the one that wins more often as chosen; not where a comparison is unknown or
    one of them is not learned from.
    """
    # the losses are symmetric; ordered so that "chosen" is the better one, as everywhere
    first = rates[:, :1] >= rates[:, 1:]
    take = jnp.where(first, jnp.array([[0, 1]]), jnp.array([[1, 0]]))
    high, low = jnp.take_along_axis(rates, take, -1).T
    keep = jnp.isfinite(rates).all(-1) & valid.all(-1)
    # an unknown comparison is not kept, but its NaN would still reach the batch
    high, low = (jnp.nan_to_num(x, nan=0.5) for x in (high, low))
    return {"take": take, "keep": keep, "chosen_win_rate": high, "rejected_win_rate": low}


@relative_to("group", min_responses=2)
def best_and_worst(scores: Scores, valid: Valid) -> Fields:
    """Online DPO (https://arxiv.org/abs/2402.04792): the best response is chosen, the worst
    rejected; a prompt whose scores are all equal is left out.
    """
    best, worst, differ = adv.best_and_worst(scores, valid)
    return {"take": jnp.stack([best, worst], -1), "keep": differ}


@relative_to("group", min_responses=2)
def best_and_worst_with_origin(scores: Scores, valid: Valid) -> Fields:
    """XPO (https://arxiv.org/abs/2405.21046): as `best_and_worst`, and whether the chosen response
    was drawn from the reference, which wrote the last one.
    """
    fields = best_and_worst(scores, valid)
    # the reference writes the LAST response (Experience.opponent)
    from_reference = fields["take"][:, 0] == scores.shape[1] - 1
    return fields | {"ref_response": from_reference.astype(jnp.float32)}


@relative_to("group", min_responses=2)
def best_and_worst_with_margin(scores: Scores, valid: Valid) -> Fields:
    """REBEL (https://arxiv.org/abs/2404.16767): the best and the worst response with the difference
    of their scores; two of equal scores teach that they are equally good.
    """
    last = scores.shape[1] - 1
    best, _, _ = adv.best_and_worst(scores, valid)
    # the last of equals, so that a pair of equal scores is two responses
    _, worst, _ = adv.best_and_worst(scores[:, ::-1], valid[:, ::-1])
    take = jnp.stack([best, last - worst], -1)
    high, low = jnp.take_along_axis(scores, take, -1).T
    return {"take": take, "keep": valid.sum(-1) > 1, "margin": high - low}


@relative_to("group", min_responses=2)
def best_and_worst_win_rate(
    win_probs: Float[Array, "B K K"], valid: Valid, *, least_margin: float = 0.0
) -> Fields:
    """DNO-Prct (https://arxiv.org/abs/2404.03715): the response that wins most against the others
    and the one that wins least, where their win rates differ by more than `least_margin`.

    Args:
      least_margin: prompts whose win rates differ by no more are left out, in [0, 1); 0.
    """
    # over the others: itself at 1/2 would shrink the margin that least_margin is compared with
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
    top, _, _ = adv.best_and_worst(scores, valid)
    return {"take": top[:, None], "keep": valid.any(-1)}


@relative_to("rollout")
def top_share(scores: Scores, valid: Valid, *, alpha: float = 0.2) -> Fields:
    """RAFT's other selection (https://arxiv.org/abs/2304.06767): of the whole rollout the share
    alpha of responses with the highest scores. Of several to a prompt only the best is a candidate.

    Args:
      alpha: share of the rollout that is learned from, in (0, 1]; 0.2.
    """
    fields = best(scores, valid)
    # one candidate per prompt, since an example of the format is one response
    highest = jnp.take_along_axis(scores, fields["take"], -1)[:, 0]
    return fields | {"keep": adv.top_share(highest, fields["keep"], alpha=alpha)}


@relative_to("group")  # that it accepts two is asked for there
def rejection_sampled(
    scores: Scores, valid: Valid, uniforms: Float[Array, "B K K"], *, rejection_beta: float = 0.5
) -> Fields:
    """RSO (https://arxiv.org/abs/2309.06657): the first two responses that statistical rejection
    sampling with the temperature `rejection_beta` of the scores accepts; the one with the higher
    score is chosen, and two of equal scores are left out. The paper accepts 8 of 64 responses of
    the model that training starts from and makes four pairs of them.

    Args:
      rejection_beta: temperature of the scores in the acceptance probability, > 0; 0.5. Near 0 the
        best are taken, at infinity the first.
    """
    # two accepted ones make one pair; the paper's eight make four of the same samples
    take, enough = adv.statistical_rejection(scores, valid, uniforms, beta=rejection_beta, accept=2)
    first, second = jnp.take_along_axis(scores, take, -1).T
    chosen_first = jnp.where((first >= second)[:, None], take, take[:, ::-1])
    return {"take": chosen_first, "keep": enough & (first != second)}


def everything(valid: Valid) -> Fields:
    """On-policy distillation (https://arxiv.org/abs/2306.13649): every response, unjudged."""
    return {"keep": valid.any(-1)}
