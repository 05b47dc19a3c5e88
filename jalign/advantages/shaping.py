"""Penalties and clipping of scores, importance weights of the sampler, and the KL controller.

Scores and lengths have any shape, one number per response.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jalign.advantages._arrays import kept
from jalign.losses._math import require

Responses = Float[Array, "*P"]


def missing_eos(scores: Responses, finished: Bool[Array, "*P"], *, penalty: float) -> Responses:
    """score - penalty where the response did not end by itself but was cut off.

    Args:
      finished: whether the response ended by EOS.
      penalty: >= 0, in units of the score.
    Raises:
      ValueError: penalty < 0.
    Deviations: as TRL; OpenAI's code REPLACES the score by -1.
    >>> missing_eos(jnp.array([2.0, 2.0]), jnp.array([True, False]), penalty=1.5).tolist()
    [2.0, 0.5]
    """
    require(penalty >= 0, f"penalty must be >= 0, got {penalty}")
    scores = jnp.asarray(scores, jnp.float32)
    # subtracted, as TRL: replacing the score would hide which truncated response was the better one
    return jnp.where(finished, scores, scores - penalty)


def clip_scores(scores: Responses, *, limit: float) -> Responses:
    """score, at least -limit and at most limit.

    Args:
      limit: > 0.
    Raises:
      ValueError: limit <= 0.
    >>> clip_scores(jnp.array([2.0, -9.0]), limit=5.0).tolist()
    [2.0, -5.0]
    """
    require(limit > 0, f"limit must be > 0, got {limit}")
    return jnp.clip(jnp.asarray(scores, jnp.float32), -limit, limit)


def soft_over_long(
    lengths: Responses | Int[Array, "*P"], *, max_length: int = 20480, cache_length: int = 4096
) -> Responses:
    """0 up to max_length - cache_length tokens, then falling to -1 at max_length: DAPO.

    Yu et al. 2025, https://arxiv.org/abs/2503.14476, Eq. 13. To be added to the score.

    Args:
      lengths: tokens of each response, EOS included.
      max_length: tokens at which the punishment is -1; more are not worse.
      cache_length: tokens before that over which it grows, > 0 and < max_length.
    Raises:
      ValueError: a number out of its range.
    >>> soft_over_long(jnp.array([6, 8, 9, 12]), max_length=10, cache_length=4).tolist()
    [0.0, -0.5, -0.75, -1.0]
    """
    require(
        0 < cache_length < max_length,
        f"cache_length must be between 0 and max_length {max_length}, got {cache_length}",
    )
    # lengths count EOS, as max_new_tokens does
    under = (max_length - cache_length) - jnp.asarray(lengths, jnp.float32)
    return jnp.clip(under / cache_length, -1.0, 0.0)


def importance_weights(
    old_token_logps: Float[Array, "*P"],
    sampler_token_logps: Float[Array, "*P"],
    mask: Bool[Array, "*P"],
    *,
    cap: float = 2.0,
) -> Float[Array, "*P"]:
    """min(p_old(token) / p_sampler(token), cap) at scored tokens, 0 elsewhere: truncated weights.

    To multiply the loss of each token with, where another engine than the trainer sampled it. The
    two compute the same model with other roundings, so that the ratio is near 1, but not always.

    Args:
      old_token_logps: of the weights that sampled, computed by the trainer, nats.
      sampler_token_logps: of the same weights as the sampler computed them, nats.
      cap: > 0; 2 to 3.
    Raises:
      ValueError: cap <= 0.
    >>> old, sampler = jnp.array([-1.0, -1.0]), jnp.array([-1.0, -9.0])
    >>> importance_weights(old, sampler, jnp.array([True, True]), cap=2.0).tolist()
    [1.0, 2.0]
    """
    require(cap > 0, f"cap must be > 0, got {cap}")
    log_ratio = kept(old_token_logps, mask) - kept(sampler_token_logps, mask)
    # the cap is applied to the logarithm: where evaluates both branches, and exp may be inf
    high = log_ratio > jnp.log(cap)
    return kept(jnp.where(high, cap, jnp.exp(jnp.where(high, 0.0, log_ratio))), mask)


def adaptive_kl(
    beta: Float[Array, ""] | float,
    kl: Float[Array, ""] | float,
    n: Int[Array, ""] | int,
    *,
    target: float = 6.0,
    horizon: float = 10000.0,
) -> Float[Array, ""]:
    """beta * (1 + clip(kl / target - 1, -0.2, 0.2) * n / horizon): the next KL coefficient.

    Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, section 2.2: a proportional controller in
    log-space that moves the KL divergence of responses to a target.

    Args:
      beta: the KL coefficient of this rollout, > 0.
      kl: what was measured, the mean over responses of the SUM over tokens, nats.
      n: responses in the rollout.
      target: nats, > 0; 6.
      horizon: responses after which beta can have changed by about exp(0.2), > 0; 10,000.
    Raises:
      ValueError: a number out of its range.
    Deviations: as the authors' code; the paper has 0.1 for n / horizon.
    >>> round(float(adaptive_kl(0.25, 9.0, 5000)), 4)
    0.275
    """
    require(target > 0, f"target must be > 0, got {target}")
    require(horizon > 0, f"horizon must be > 0, got {horizon}")
    # clipped: an odd rollout moves beta by 20 % of n / horizon at most
    error = jnp.clip(jnp.asarray(kl, jnp.float32) / target - 1, -0.2, 0.2)
    return jnp.asarray(beta, jnp.float32) * (1 + error * n / horizon)
