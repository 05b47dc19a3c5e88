"""Baselines and scales of 2025 and 2026: what is taken off a reward, and what it is divided by.

Scores are [B, K], K responses to each of B prompts; `valid` marks the slots that hold one. Other
slots are ignored, even if NaN, and their advantage is 0. Advantages are used without gradient.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jalign.advantages._arrays import centered, kept, mean, over_deviation
from jalign.advantages.group import group_normalized
from jalign.losses._math import require

Scores = Float[Array, "B K"]
Valid = Bool[Array, "B K"]
Tokens = Float[Array, "B K R"]


def maxrl(scores: Scores, valid: Valid, *, epsilon: float = 1e-6) -> Scores:
    """(score - mean of the group) / (mean of the group + epsilon): MaxRL.

    Tajwar et al. 2026, "Maximum Likelihood Reinforcement Learning",
    https://arxiv.org/abs/2602.02710, Algorithm 1. For scores 0 and 1 the gradient is that of
    log P(right) expanded to K - 1 terms, not of P(right): a prompt that is rarely answered well
    weighs more. A group whose mean is not above 0, as where every answer is wrong, has advantages
    of exactly 0.

    Args:
      scores: >= 0; 0 is failure.
      epsilon: added to the mean, >= 0; 1e-6 (the authors' code).
    Raises:
      ValueError: epsilon < 0.
    Deviations: the authors' code divides by a negative mean, too, which would turn the sign.
    >>> maxrl(jnp.array([[1.0, 0.0, 0.0, 0.0]]), jnp.ones((1, 4), bool), epsilon=0.0).tolist()
    [[3.0, -1.0, -1.0, -1.0]]
    """
    require(epsilon >= 0, f"epsilon must be >= 0, got {epsilon}")
    # the success rate, if scores are 0 and 1
    level = mean(scores, valid, -1)
    away = centered(scores, valid, -1)
    return jnp.where(level > 0, away / (jnp.where(level > 0, level, 1.0) + epsilon), 0.0)


def opo(scores: Scores, lengths: Scores | Int[Array, "B K"], valid: Valid) -> Scores:
    """score - sum of length * score / sum of length, over the group: OPO.

    Hao et al. 2025, "On-Policy RL with Optimal Reward Baseline", https://arxiv.org/abs/2505.23585:
    the baseline of least variance, if the squared gradient of a response grows with its length.
    A group with one response has an advantage of 0.

    Args:
      lengths: scored tokens of each response.
    >>> scores, lengths = jnp.array([[1.0, 4.0]]), jnp.array([[1.0, 2.0]])
    >>> opo(scores, lengths, jnp.ones((1, 2), bool)).tolist()
    [[-2.0, 1.0]]
    """
    lengths = kept(jnp.asarray(lengths, jnp.float32), valid)
    # an empty group divides 0 by this
    total = jnp.maximum(lengths.sum(-1, keepdims=True), 1e-20)
    baseline = (lengths * kept(scores, valid)).sum(-1, keepdims=True) / total
    return kept(kept(scores, valid) - baseline, valid)


def pass_at_k(scores: Scores, valid: Valid, *, epsilon: float = 1e-6) -> Scores:
    """(best - second best) / (deviation of the group + epsilon) for the best response, else 0.

    Tang et al. 2025, "Optimizing Language Models for Inference Time Objectives using Reinforcement
    Learning", https://arxiv.org/abs/2503.19595: the gradient of the expected maximum of K samples
    with the leave-one-out baseline, as in verl (grpo_passk). Of equal scores none is above the
    second.

    Args:
      epsilon: added to the deviation, >= 0; 1e-6 (verl).
    Raises:
      ValueError: epsilon < 0.
    Deviations: the paper does not divide by the deviation, verl does unless it is told not to.
    >>> scores = jnp.array([[1.0, 3.0, 2.0]])
    >>> pass_at_k(scores, jnp.ones((1, 3), bool), epsilon=0.0).tolist()
    [[0.0, 1.0, 0.0]]
    """
    require(epsilon >= 0, f"epsilon must be >= 0, got {epsilon}")
    known = jnp.where(valid, jnp.asarray(scores, jnp.float32), -jnp.inf)
    first, second = jnp.sort(known, -1, descending=True)[:, :2].T
    several = jnp.isfinite(second)  # with one response there is nothing to be better than
    lead = jnp.where(several, first - jnp.where(several, second, 0.0), 0.0)
    # the first of equals, whose lead is 0
    best = jnp.arange(scores.shape[-1]) == jnp.argmax(known, -1)[:, None]
    return over_deviation(jnp.where(best, lead[:, None], 0.0), scores, valid, -1, epsilon)


def lite_ppo(scores: Scores, valid: Valid, *, epsilon: float = 1e-4) -> Scores:
    """(score - mean of the group) / (standard deviation of the batch + epsilon): Lite PPO.

    Liu et al. 2025, "Part I: Tricks or Traps? A Deep Dive into RL for LLM Reasoning",
    https://arxiv.org/abs/2508.08221. The deviation of a group is tiny where nearly all answers are
    right or wrong, and GRPO's advantages are then huge; that of the batch is not.

    Args:
      epsilon: added to the deviation, >= 0; 1e-4 (TRL).
    Raises:
      ValueError: epsilon < 0.
    Deviations: squares are divided by n - 1, as in TRL (scale_rewards batch).
    >>> scores = jnp.array([[1.0, 3.0], [2.0, 2.0]])
    >>> [round(x, 3) for x in lite_ppo(scores, scores > 0, epsilon=0.0)[0].tolist()]
    [-1.225, 1.225]
    """
    require(epsilon >= 0, f"epsilon must be >= 0, got {epsilon}")
    return over_deviation(centered(scores, valid, -1), scores, valid, (0, 1), epsilon)


def gdpo(
    parts: Float[Array, "B K N"],
    weights: Float[Array, "N"],
    valid: Valid,
    *,
    epsilon: float = 1e-4,
) -> Scores:
    """Each of N rewards normalized within its group, weighted, summed, then over the batch: GDPO.

    Liu et al. 2026, "GDPO: Group reward-Decoupled Normalization Policy Optimization",
    https://arxiv.org/abs/2601.05242. GRPO normalizes the sum, in which a reward of a large spread
    hides the others, and different combinations of rewards give equal advantages.

    Args:
      parts: N rewards of each response; NaN where one does not apply, which then adds nothing.
      weights: of the rewards.
      epsilon: added to every deviation, >= 0; 1e-4 (TRL; verl has 1e-6).
    Raises:
      ValueError: epsilon < 0.
    Deviations: as in TRL, the last normalization is over responses; verl's is over their tokens.
    >>> parts = jnp.array([[[1.0, 50.0], [0.0, 70.0]], [[1.0, 90.0], [0.0, 10.0]]])
    >>> out = gdpo(parts, jnp.array([2.0, 1.0]), jnp.ones((2, 2), bool), epsilon=0.0)
    >>> [[round(x, 3) for x in row] for row in out.tolist()]
    [[0.387, -0.387], [1.162, -1.162]]
    """
    each = jnp.moveaxis(jnp.asarray(parts, jnp.float32), -1, 0)
    total = jnp.zeros(valid.shape, jnp.float32)
    for part, weight in zip(each, weights, strict=True):
        # a group of equal rewards is exactly 0, as is a reward that does not apply
        total += weight * group_normalized(part, valid & ~jnp.isnan(part), epsilon=epsilon)
    return over_deviation(centered(total, valid), total, valid, (0, 1), epsilon)


def otb(
    scores: Scores,
    old_token_logps: Tokens,
    old_log_sum_p_squared: Tokens,
    mask: Bool[Array, "B K R"],
) -> Tokens:
    """score - sum of score * W_t / sum of W_t over the group's responses that reach token t: OTB.

    W_t is the sum up to t of 1 - 2 p(token) + sum over the vocabulary of p^2: the squared gradient
    by the logits, which grows along uncertain paths. "The Optimal Token Baseline",
    https://arxiv.org/abs/2602.07078; as in verl (optimal_token_baseline).

    Args:
      old_token_logps: log p of each token under the policy that sampled, nats.
      old_log_sum_p_squared: log of the sum of squared probabilities there.
      mask: tokens of responses that have a score.
    Returns:
      The advantage of every token, 0 outside of the mask. Where one response alone reaches t, its
      baseline is 0 and its advantage the score, as in verl (handle_zero_tail): its own score as a
      baseline would depend on the token.
    Deviations: verl adds 1e-8 to the sum of W_t.
    >>> logps = jnp.log(jnp.array([[[0.5, 0.5], [0.25, 0.25]]]))
    >>> squares = jnp.log(jnp.full((1, 2, 2), 0.5))
    >>> out = otb(jnp.array([[1.0, 0.0]]), logps, squares, jnp.ones((1, 2, 2), bool))
    >>> [round(x, 3) for x in out[0, :, 0].tolist()]
    [0.667, -0.333]
    """
    # |one-hot - p|^2: the squared gradient of log p(token) by the logits
    p = jnp.exp(kept(old_token_logps, mask))
    # a squared length, which rounding would make negative at certain tokens
    energy = jnp.maximum(kept(1 - 2 * p + jnp.exp(kept(old_log_sum_p_squared, mask)), mask), 0.0)
    weight = kept(jnp.cumsum(energy, -1), mask)
    scores = kept(scores, mask.any(-1))[..., None]
    # divided only where something is: certain tokens have no energy, and no gradient either
    total = weight.sum(1, keepdims=True)
    baseline = (scores * weight).sum(1, keepdims=True) / jnp.where(total > 0, total, 1.0)
    # where one response goes on alone its own score would cancel itself
    alone = mask.sum(1, keepdims=True) < 2
    return kept(scores - jnp.where(alone, 0.0, baseline), mask)


def log_mean_exp(scores: Scores, valid: Valid, *, beta: float) -> Float[Array, "B"]:
    """beta log mean exp(score / beta) over a prompt's responses: the value of the policy that is
    optimal under beta KL to the one that sampled; 0 without any.

    Args:
      beta: > 0.
    Raises:
      ValueError: beta <= 0.
    >>> x = jnp.array([[0.0, 1.0]])
    >>> round(float(log_mean_exp(x, x >= 0, beta=1.0)[0]), 4)
    0.6201
    """
    require(beta > 0, f"beta1 must be > 0, got {beta}")
    some, n = valid.any(-1), jnp.sum(valid, -1)
    # the largest comes off first: exp(100 / 0.5) is infinite
    top = jnp.max(jnp.where(valid, scores, -jnp.inf), -1)
    top = jnp.where(some, top, 0.0)
    away = kept(kept(scores, valid) - top[:, None], valid)
    mean_exp = jnp.sum(kept(jnp.exp(away / beta), valid), -1) / jnp.maximum(n, 1)
    return jnp.where(some, top + beta * jnp.log(jnp.where(some, mean_exp, 1.0)), 0.0)
