"""Rewards, returns and advantages of tokens, for methods with a critic or a KL reward.

Arrays are [N, R], one row per response. `mask` is True at scored tokens. Gaps in it (tokens of
a tool or another turn) take no time: rewards and values there are not read, nothing is discounted,
and the next scored token follows directly. Results are 0 at unscored positions. The value at a
token is that of the state before it; after the last scored token all values are 0.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jalign.advantages._arrays import centered, kept, mean
from jalign.losses._math import require

Tokens = Float[Array, "N R"]
Mask = Bool[Array, "N R"]


def k1(token_logps: Float[Array, "*P"], ref_token_logps: Float[Array, "*P"]) -> Float[Array, "*P"]:
    """log p - log p_ref: the estimate of KL(p || p_ref) to put into a reward.

    For log-probs of the policy that sampled. As a reward it has the gradient of the KL of whole
    responses; as a loss it would have none.

    >>> k1(jnp.array([-1.0]), jnp.array([-1.5])).tolist()
    [0.5]
    """
    return jnp.asarray(token_logps, jnp.float32) - jnp.asarray(ref_token_logps, jnp.float32)


def k3(token_logps: Float[Array, "*P"], ref_token_logps: Float[Array, "*P"]) -> Float[Array, "*P"]:
    """exp(-d) - 1 + d, d = log p - log p_ref: an estimate of KL(p || p_ref) for logging.

    Never negative and of less variance than `k1`; as a reward its gradient is biased. d is clamped
    to +-20.

    >>> round(float(k3(jnp.array(-1.0), jnp.array(-3.0))), 4)
    1.1353
    """
    # exp(-d) overflows from 89 nats on, where a mean over tokens would be inf
    d = jnp.clip(k1(token_logps, ref_token_logps), -20.0, 20.0)
    return jnp.expm1(-d) + d


def token_rewards(
    scores: Float[Array, "N"], kl: Tokens, mask: Mask, *, kl_coef: float = 0.05
) -> Tokens:
    """-kl_coef * kl at each scored token, and the score of the response at the last of them.

    Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, and most of RLHF before and after it.

    Args:
      scores: the reward of each response.
      kl: an estimate of the KL divergence at each token, nats, such as `k1`.
      kl_coef: >= 0; 0.05 (TRL).
    Raises:
      ValueError: kl_coef < 0.
    Deviations: TRL puts the score one position after the last token where there is padding.
    >>> mask = jnp.array([[True, True, False]])
    >>> token_rewards(jnp.array([2.0]), jnp.full((1, 3), 0.5), mask, kl_coef=0.5).tolist()
    [[-0.25, 1.75, 0.0]]
    """
    require(kl_coef >= 0, f"kl_coef must be >= 0, got {kl_coef}")
    # the last SCORED token: at the last position of a padded row the score would be masked away
    last = mask & (jnp.cumsum(mask, -1) == jnp.sum(mask, -1, keepdims=True))
    scores = jnp.asarray(scores, jnp.float32)[:, None]
    return jnp.where(last, scores, 0.0) - kl_coef * kept(kl, mask)


def rewards_to_go(rewards: Tokens, mask: Mask, *, gamma: float = 1.0) -> Tokens:
    """R_t = r_t + gamma * R_(t+1) over scored tokens: the discounted return.

    Args:
      gamma: discount per scored token, in [0, 1]; 1.
    Raises:
      ValueError: gamma outside of [0, 1].
    >>> rewards_to_go(jnp.array([[1.0, 2.0, 4.0]]), jnp.ones((1, 3), bool), gamma=0.5).tolist()
    [[3.0, 4.0, 4.0]]
    """
    # with V = 0 and lam = 1 GAE is the discounted return
    return gae(rewards, jnp.zeros_like(rewards), mask, gamma=gamma, lam=1.0)[0]


def gae(
    rewards: Tokens,
    values: Tokens,
    mask: Mask,
    *,
    gamma: float = 1.0,
    lam: float | Float[Array, "N"] = 0.95,
) -> tuple[Tokens, Tokens]:
    """A_t = delta_t + gamma * lam * A_(t+1), delta_t = r_t + gamma * V_(t+1) - V_t; returns A + V.

    Schulman et al. 2015, "High-Dimensional Continuous Control Using Generalized Advantage
    Estimation", https://arxiv.org/abs/1506.02438, Eq. 16. The last scored token is taken to end the
    response, also where a limit of length cut it off.

    Args:
      rewards: r, at each token.
      values: V, of the critic, before each token.
      gamma: discount per scored token, in [0, 1]; 1.
      lam: in [0, 1], one for all or one per response; 0.95. With 1 the return is the reward to go,
        with 0 it is the one-step target.
    Returns:
      Advantages, not whitened, and returns.
    Raises:
      ValueError: a number out of its range.
    Deviations: none; over holes in the mask as verl.
    >>> rewards, values = jnp.array([[0.0, 1.0]]), jnp.array([[0.5, 0.25]])
    >>> [x.tolist() for x in gae(rewards, values, jnp.ones((1, 2), bool), lam=0.5)]
    [[[0.125, 0.75]], [[0.625, 1.0]]]
    """
    require(0 <= gamma <= 1, f"gamma must be in [0, 1], got {gamma}")
    inside = jnp.all((jnp.asarray(lam) >= 0) & (jnp.asarray(lam) <= 1))
    require(inside, f"lam must be in [0, 1], got {lam}")
    rewards, values = kept(rewards, mask), kept(values, mask)

    def back(after: tuple[Array, Array], now: tuple[Array, Array, Array]):
        value_after, advantage_after = after
        reward, value, here = now
        delta = reward + gamma * value_after - value
        advantage = delta + gamma * lam * advantage_after
        # unscored positions inside a response (a tool's reply) pass the later value on unchanged
        after = jnp.where(here, value, value_after), jnp.where(here, advantage, advantage_after)
        return after, advantage

    # V = 0 after the end, also for a response cut off at the limit: nothing is known beyond it
    nothing = jnp.zeros_like(values[:, 0])
    steps = rewards.T, values.T, mask.T
    _, advantages = jax.lax.scan(back, (nothing, nothing), steps, reverse=True)
    advantages = kept(advantages.T, mask)
    return advantages, advantages + values


def length_adaptive_lambda(
    lengths: Int[Array, "N"] | Float[Array, "N"], *, alpha: float = 0.05
) -> Float[Array, "N"]:
    """1 - 1 / (alpha * length), at least 0: VAPO's lambda of the policy's advantages.

    Yue et al. 2025, https://arxiv.org/abs/2504.05118, Eq. 6: the weights lambda^t of a response sum
    up to alpha * length, whatever its length.

    Args:
      lengths: scored tokens.
      alpha: > 0; 0.05.
    Raises:
      ValueError: alpha <= 0.
    >>> length_adaptive_lambda(jnp.array([10, 40, 160]), alpha=0.05).tolist()
    [0.0, 0.5, 0.875]
    """
    require(alpha > 0, f"length_alpha must be > 0, got {alpha}")
    lengths = jnp.maximum(jnp.asarray(lengths, jnp.float32), 1.0)
    return jnp.maximum(1 - 1 / (alpha * lengths), 0.0)


def whiten(
    x: Float[Array, "*P"], mask: Bool[Array, "*P"], *, shift_mean: bool = True
) -> Float[Array, "*P"]:
    """(x - mean) / sqrt(variance + 1e-8), plus the mean where it is not shifted; over all tokens.

    Statistics are over the whole array: pass the whole rollout, not a micro-batch.

    Args:
      shift_mean: False keeps the mean, which rewards want: their sign means something.
    Deviations: squares are divided by n, as in lm-human-preferences and OpenRLHF; TRL and verl
      divide by n - 1, a difference of 1 / (2 n).
    >>> whiten(jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])).tolist()
    [-1.0, 1.0, 0.0]
    """
    away = centered(x, mask)
    # added under the root: equal numbers have variance 0 and stay 0
    scaled = away * jax.lax.rsqrt(mean(away**2, mask) + 1e-8)
    return scaled if shift_mean else kept(scaled + mean(x, mask), mask)


def explained_variance(
    values: Float[Array, "*P"], returns: Float[Array, "*P"], mask: Bool[Array, "*P"]
) -> Float[Array, ""]:
    """1 - mean (V - R)^2 / variance of R: 1 is a perfect critic, 0 a constant at the mean.

    Below 0 the critic is worse than that constant. NaN where the returns are all equal.
    Deviations: the variance of V - R, which some libraries take, would forgive a constant error.

    >>> a = lambda *x: jnp.array(x)
    >>> float(explained_variance(a(1.0, 2.0, 7.0), a(1.0, 3.0, 5.0), a(True, True, False)))
    0.5
    """
    variance = mean(centered(returns, mask) ** 2, mask).reshape(())
    # of V - R itself, not of its variance, which would forgive a critic that is off by a constant
    error = mean((kept(values, mask) - kept(returns, mask)) ** 2, mask).reshape(())
    return jnp.where(variance > 0, 1 - error / jnp.where(variance > 0, variance, 1.0), jnp.nan)
