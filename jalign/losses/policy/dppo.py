"""DPPO: a trust region in probabilities, where PPO's is in ratios.

Qi et al. 2026, "Rethinking the Trust Region in LLM Reinforcement Learning".
https://arxiv.org/abs/2602.04879, the binary divergences and section 5.4.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import approx_kl, bounded, log_ratios, recorded, scored

Tokens = Float[Array, "B R"]
Mask = Bool[Array, "B R"]
Out = tuple[Tokens, dict[str, Tokens]]


def dppo_tv(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Mask,
    *,
    delta_low: float = 0.15,
    delta_high: float = 0.15,
    ratio_max: float = 20.0,
) -> Out:
    """-stop_gradient(min(rho, ratio_max)) A log p(token) where p has not moved too far, else 0.

    rho = p / p_old of the token. Where A > 0 a token counts while p - p_old <= delta_high, else
    while p - p_old >= -delta_low: |p - p_old| is the total variation between the distributions
    of "this token or another". The ratio of a rare token is large after a small change, and PPO
    clips it first; here it is free, and a frequent token is held.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A, no gradient.
      mask: scored positions; values elsewhere are ignored.
      delta_low, delta_high: how far a probability may fall or rise, in (0, 1]; 0.15.
      ratio_max: the largest weight, >= 1; 20. A small one biases the gradient.
    Returns:
      The unreduced loss, 0 at unscored positions; rho as `ratio`; where a bound holds as
      `clip_ratio/low_mean` (A <= 0) and `clip_ratio/high_mean` (A > 0); `approx_kl` as in
      `ppo_clip`.
    Raises:
      ValueError: a number out of its range.
    Deviations: log rho is clamped to +-20, as in verl.
    >>> import jax.numpy as jnp
    >>> logps, old = jnp.log(jnp.array([[0.75, 0.02]])), jnp.log(jnp.array([[0.5, 0.01]]))
    >>> a = jnp.array([[2.0, 1.0]])
    >>> [round(x, 3) for x in dppo_tv(logps, old, a, a > 0)[0][0].tolist()]
    [0.0, 7.824]
    """
    for name, x in {"delta_low": delta_low, "delta_high": delta_high}.items():
        require(0 < x <= 1, f"{name} must be in (0, 1], got {x}")
    logps, old = recorded(mask, token_logps, old_token_logps)
    # probabilities, not ratios: 0.01 to 0.02 is a ratio of 2 and hardly a change
    moved = jnp.exp(logps) - jnp.exp(old)
    far = moved < -delta_low, moved > delta_high
    return _masked(token_logps, old_token_logps, advantages, mask, far, ratio_max)


def dppo_kl(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Mask,
    *,
    delta_low: float = 0.05,
    delta_high: float = 0.05,
    ratio_max: float = 20.0,
) -> Out:
    """`dppo_tv` with the binary KL(p_old || p) as the distance.

    p_old log(p_old / p) + (1 - p_old) log((1 - p_old) / (1 - p)), of "this token or another".

    Args:
      token_logps, old_token_logps, advantages, mask, ratio_max: as in `dppo_tv`.
      delta_low, delta_high: the divergence up to which a token counts that has become less or more
        probable, nats, > 0; 0.05.
    Returns:
      As `dppo_tv`.
    Raises:
      ValueError: a number out of its range.
    Deviations: log rho is clamped to +-20, and 1e-8 is added to 1 - p and 1 - p_old, as in verl.
    >>> import jax.numpy as jnp
    >>> logps, old = jnp.log(jnp.array([[0.75, 0.02]])), jnp.log(jnp.array([[0.5, 0.01]]))
    >>> a = jnp.array([[2.0, 1.0]])
    >>> [round(x, 3) for x in dppo_kl(logps, old, a, a > 0)[0][0].tolist()]
    [0.0, 7.824]
    """
    for name, x in {"delta_low": delta_low, "delta_high": delta_high}.items():
        require(x > 0, f"{name} must be > 0, got {x}")
    logps, old = recorded(mask, token_logps, old_token_logps)
    p, p_old = jnp.exp(logps), jnp.exp(old)
    kl = p_old * (old - logps) + (1 - p_old) * jnp.log((1 - p_old + 1e-8) / (1 - p + 1e-8))
    # a token on its way back is free, however far away it is
    far = (p < p_old) & (kl > delta_low), (p > p_old) & (kl > delta_high)
    return _masked(token_logps, old_token_logps, advantages, mask, far, ratio_max)


def _masked(
    logps: Tokens,
    old: Tokens,
    advantages: Tokens,
    mask: Mask,
    far: tuple[Array, Array],
    ratio_max: float,
) -> Out:
    """The loss of tokens that are not `far` (below, above) on the side that A pulls to."""
    require(ratio_max >= 1, f"ratio_max must be >= 1, got {ratio_max}")
    (a,) = recorded(mask, advantages)
    log_ratio = log_ratios(logps, old, mask)
    ratio = jnp.exp(bounded(log_ratio))
    low, high = mask & (a <= 0) & far[0], mask & (a > 0) & far[1]
    # detached, as in CISPO: the mask bounds the step, so the weight need not
    weight = jax.lax.stop_gradient(jnp.minimum(ratio, ratio_max))
    (logps,) = scored(mask, logps)
    return jnp.where(low | high, 0.0, -weight * a * logps), {
        "ratio": ratio,
        "clip_ratio/low_mean": low.astype(jnp.float32),
        "clip_ratio/high_mean": high.astype(jnp.float32),
        "approx_kl": approx_kl(log_ratio),
    }
