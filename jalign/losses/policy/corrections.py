"""Rollout corrections: weights and masks for samples of another policy than the trained one.

A sampler in another precision, or one some steps behind, draws from p_s where the loss assumes
p_old. With rho = p_old(token) / p_s(token), the ratio of trainer and sampler:

    tis           min(rho, high)
    mis           rho where low <= rho <= high, else 0
    sequence_tis  min(product of rho, high), of the response
    geometric     1 where low <= exp(mean log rho) <= high, of the response, else 0
    k3            1 where mean (rho - 1 - log rho) <= high, of the response, else 0
    opsm          0 where A < 0 and mean log(p_s / p) > high, of the response, else 1

Truncated importance sampling: Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You
Off-Policy RL Training"; masked (IcePop): https://arxiv.org/abs/2510.18855; opsm, the off-policy
sequence mask: DeepSeek-V3.2, https://arxiv.org/abs/2512.02556; the others as in verl
(`rollout_corr_helper.py`). The unbiased KL of DeepSeek-V3.2 is `losses.kl_k3_ratio`.

Functions of [B, R] arrays; weights have no gradient and are 0 at unscored positions. Ratios are
clamped to exp(+-20).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import approx_kl, bounded, mean_of_response, recorded

Tokens = Float[Array, "B R"]
Mask = Bool[Array, "B R"]


def tis(old_token_logps: Tokens, sampler_token_logps: Tokens, mask: Mask, *, high: float) -> Tokens:
    """min(rho, high): bounded variance, for a bias where the bound holds. high > 0; 2.

    >>> a = lambda *x: jnp.array([x])
    >>> tis(a(-1.0, -1.0), a(-1.0, -9.0), a(True, True), high=2.0).tolist()
    [[1.0, 2.0]]
    """
    require(high > 0, f"tis must be > 0, got {high}")
    return _at(mask, jnp.minimum(_rho(old_token_logps, sampler_token_logps, mask), high))


def mis(
    old_token_logps: Tokens,
    sampler_token_logps: Tokens,
    mask: Mask,
    *,
    high: float,
    low: float | None = None,
) -> Tokens:
    """rho where low <= rho <= high, else 0: tokens on which the two disagree are left out. high >
    1, low < 1; 1 / high unless it is given. IcePop has 0.5 and 5.

    >>> a = lambda *x: jnp.array([x])
    >>> mis(a(-1.0, -1.0), a(-1.0, -9.0), a(True, True), high=2.0).tolist()
    [[1.0, 0.0]]
    """
    low = _lowest("mis", high, low)
    rho = _rho(old_token_logps, sampler_token_logps, mask)
    return _at(mask, jnp.where((rho >= low) & (rho <= high), rho, 0.0))


def sequence_tis(
    old_token_logps: Tokens, sampler_token_logps: Tokens, mask: Mask, *, high: float
) -> Tokens:
    """min(product of rho, high) at every token: no bias below the bound. high > 0; 2.

    >>> a = lambda *x: jnp.array([x])
    >>> sequence_tis(a(-1.0, -1.0), a(-1.5, -0.5), a(True, True), high=2.0).tolist()
    [[1.0, 1.0]]
    """
    require(high > 0, f"sequence_tis must be > 0, got {high}")
    log_ratio = _log_rho(old_token_logps, sampler_token_logps, mask)
    product = jnp.exp(bounded(jnp.sum(log_ratio, -1, keepdims=True)))
    return _at(mask, jnp.minimum(product, high))


def geometric(
    old_token_logps: Tokens,
    sampler_token_logps: Tokens,
    mask: Mask,
    *,
    high: float,
    low: float | None = None,
) -> Tokens:
    """1 where low <= exp(mean log rho) <= high, else 0, of the response: rejection whose bound does
    not depend on the length. high > 1, low < 1; 1 / high unless it is given. 1.001 to 1.05.

    >>> a = lambda *x: jnp.array([x])
    >>> geometric(a(-1.0, -1.0), a(-1.5, -0.5), a(True, True), high=1.01).tolist()
    [[1.0, 1.0]]
    """
    low = _lowest("geometric", high, low)
    mean = mean_of_response(_log_rho(old_token_logps, sampler_token_logps, mask), mask)
    inside = (mean >= jnp.log(low)) & (mean <= jnp.log(high))
    return _at(mask, inside[:, None])


def k3(old_token_logps: Tokens, sampler_token_logps: Tokens, mask: Mask, *, high: float) -> Tokens:
    """1 where mean (rho - 1 - log rho) <= high, else 0, of the response: rejection by an estimate
    of KL(p_s || p_old), nats per token, in which deviations do not cancel. high > 0; 0.01.

    >>> a = lambda *x: jnp.array([x])
    >>> k3(a(-1.0, -1.0), a(-1.5, -0.5), a(True, True), high=0.1).tolist()
    [[0.0, 0.0]]
    """
    require(high > 0, f"k3 must be > 0, got {high}")
    log_ratio = _log_rho(old_token_logps, sampler_token_logps, mask)
    kl = mean_of_response(approx_kl(log_ratio), mask)
    return _at(mask, (kl <= high)[:, None])


def opsm(
    token_logps: Tokens,
    sampler_token_logps: Tokens,
    advantages: Tokens,
    mask: Mask,
    *,
    high: float,
) -> Tokens:
    """0 where A < 0 and mean log(p_s / p) > high, else 1: a bad response that the policy would
    hardly write any more teaches nothing. p is the policy in training, so the mask follows it from
    step to step. high > 0, nats per token; 0.01 to 0.1.

    >>> a = lambda *x: jnp.array([x])
    >>> opsm(a(-2.0, -1.0), a(-1.0, -1.0), a(-3.0, 1.0), a(True, True), high=0.1).tolist()
    [[0.0, 1.0]]
    """
    require(high > 0, f"opsm must be > 0, got {high}")
    (a,) = recorded(mask, advantages)
    left = mean_of_response(-_log_rho(token_logps, sampler_token_logps, mask), mask)
    return _at(mask, (a >= 0) | (left <= high)[:, None])


def _lowest(name: str, high: float, low: float | None) -> float:
    require(high > 1, f"{name} must be > 1: it is the upper bound of a ratio, got {high}")
    low = 1 / high if low is None else low
    require(0 <= low < 1, f"the lower bound of {name} must be in [0, 1), got {low}")
    return low


def _log_rho(logps: Tokens, sampler: Tokens, mask: Mask) -> Tokens:
    logps, sampler = recorded(mask, logps, sampler)
    return logps - sampler


def _rho(logps: Tokens, sampler: Tokens, mask: Mask) -> Tokens:
    return jnp.exp(bounded(_log_rho(logps, sampler, mask)))


def _at(mask: Mask, weight: Array) -> Tokens:
    return jnp.where(mask, weight, 0.0).astype(jnp.float32)


BY_SAMPLER = {f.__name__: f for f in (tis, mis, sequence_tis, geometric, k3)}
CORRECTIONS = (*BY_SAMPLER, "opsm")
"""Names of the corrections; the number of each is its `high`."""
