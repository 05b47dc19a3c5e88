"""PPO: proximal policy optimization, the clipped policy loss of most online methods.

Schulman et al. 2017, "Proximal Policy Optimization Algorithms". https://arxiv.org/abs/1707.06347,
Eq. 7 and 9; for language models: Ouyang et al. 2022, https://arxiv.org/abs/2203.02155. Unequal
bounds: DAPO, https://arxiv.org/abs/2503.14476; dual clip: Ye et al. 2019,
https://arxiv.org/abs/1912.09729, Eq. 5.

GRPO, Dr. GRPO, DAPO and REINFORCE++ have this loss too; they differ in how the advantages are made
(`jalign.advantages`) and in the mean that is taken.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import approx_kl, bounded, clipped, log_ratios, recorded
from jalign.losses.policy import value

Tokens = Float[Array, "B R"]
Out = tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]


def ppo_clip(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Bool[Array, "B R"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float = 0.0,
) -> Out:
    """max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), rho = p(token) / p_old(token).

    With dual clip, where A < 0, at most -dual_clip * A: a token that has become far more likely
    than it was, and should not have, cannot outweigh the batch.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A, no gradient.
      mask: scored positions; values elsewhere are ignored.
      clip_low, clip_high: distances from 1, > 0; 0.2. DAPO takes clip_high 0.28.
      dual_clip: the largest rho that counts where A < 0, > 1; 0 is off. 3 where it is used.
    Returns:
      The unreduced loss, 0 at unscored positions; rho as `ratio`; where a bound holds as
      `clip_ratio/low_mean` (A < 0), `clip_ratio/high_mean` (A > 0), `clip_ratio/dual_mean`;
      `approx_kl`, rho - 1 - log rho, an estimate of KL(old || new).
    Raises:
      ValueError: a number out of its range.
    Deviations: log rho is clamped to +-20. `approx_kl` is not TRL's half square of log rho.
    >>> import jax.numpy as jnp
    >>> logps, old = jnp.log(jnp.array([[0.75, 0.25]])), jnp.log(jnp.array([[0.5, 0.5]]))
    >>> a = jnp.array([[2.0, -1.0]])
    >>> ppo_clip(logps, old, a, a != 0, clip_low=0.25, clip_high=0.25)[0].tolist()
    [[-2.5, 0.75]]
    """
    require(dual_clip == 0 or dual_clip > 1, f"dual_clip must be 0 (off) or > 1, got {dual_clip}")
    (a,) = recorded(mask, advantages)
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    # exp of a difference: p / p_old of an improbable token is 0 / 0 in float32
    ratio = jnp.exp(bounded(log_ratio))
    # only for A < 0: there the clip leaves a large ratio unbounded
    far = (a < 0) & (ratio > jnp.where(dual_clip > 0, dual_clip, jnp.inf))
    # dual_clip is a constant there, so a token beyond it gets no gradient at all
    loss, metrics = clipped(jnp.where(far, dual_clip, ratio), a, clip_low, clip_high)
    return loss, metrics | {
        "ratio": ratio,
        "clip_ratio/dual_mean": far.astype(jnp.float32),
        "approx_kl": approx_kl(log_ratio),
    }


def ppo(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    values: Tokens,
    old_values: Tokens,
    returns: Tokens,
    mask: Bool[Array, "B R"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float = 0.0,
    value_clip: float = 0.2,
    value_coef: float = 0.1,
) -> Out:
    """`ppo_clip` + value_coef * `value_clip`: the policy and its critic in one loss.

    Args:
      token_logps, old_token_logps, advantages, mask: as in `ppo_clip`.
      values: of the critic, before each token.
      old_values: the same when the responses were sampled; no gradient.
      returns: advantages + old_values before any whitening; no gradient.
      clip_low, clip_high, dual_clip: as in `ppo_clip`.
      value_clip: how far a value may move from the old one, > 0; 0 is off.
      value_coef: weight of the critic's loss, >= 0; 0.1. It has little effect on a separate critic
        under Adam, and much where the two share weights.
    Returns:
      The unreduced loss, and the metrics of `ppo_clip` and of `value_clip`.
    Raises:
      ValueError: a number out of its range.
    Deviations: those of `ppo_clip`. An entropy bonus is a separate term.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.0, -2.0), a(2.0, -1.0), a(0.5, 1.0), a(0.5, 1.0), a(1.5, 3.0)
    >>> ppo(*x, a(True, True), value_coef=0.5)[0].tolist()
    [[-1.75, 2.0]]
    """
    require(value_coef >= 0, f"value_coef must be >= 0, got {value_coef}")
    clips = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    policy, metrics = ppo_clip(token_logps, old_token_logps, advantages, mask, **clips)
    # through the module: the keyword argument value_clip hides the function's name
    critic, more = value.value_clip(values, old_values, returns, mask, value_clip=value_clip)
    # one sum trains both: each term has a gradient in its own model only, unless they share weights
    return policy + value_coef * critic, metrics | more
