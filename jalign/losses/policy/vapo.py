"""VAPO: PPO with a critic for long chains of thought.

Yue et al. 2025, "VAPO: Efficient and Reliable Reinforcement Learning for Advanced Reasoning Tasks".
https://arxiv.org/abs/2504.05118, section 4.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._tokens import scored
from jalign.losses.policy.ppo import ppo_clip
from jalign.losses.policy.value import value_loss

Tokens = Float[Array, "B R"]


def vapo(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    values: Tokens,
    returns: Tokens,
    correct: Float[Array, "B"],
    value_steps: Float[Array, ""],
    mask: Bool[Array, "B R"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.28,
    value_coef: float = 0.1,
    positive_coef: float = 0.1,
    value_pretraining_steps: int = 50,
) -> tuple[Tokens, dict[str, Tokens]]:
    """g (`ppo_clip` - positive_coef correct log p(token)) + value_coef (V - R)^2 / 2.

    g is 0 in the first steps, in which the critic alone learns: one that begins at a reward model
    is biased, and would undo long answers before it knows them. The likelihood of correct
    responses is imitation of one's own successes.

    Args:
      token_logps, old_token_logps, advantages, mask: as in `ppo_clip`.
      values: V, of the critic, before each token.
      returns: R, the reward to go (lambda 1); no gradient.
      correct: 1 for responses that are right, else 0.
      value_steps: steps that the critic has learned for, a running value; NaN before the first.
      clip_low, clip_high: distances of rho from 1, > 0; 0.2 and 0.28.
      value_coef: weight of the critic's loss, >= 0; 0.1.
      positive_coef: weight of the likelihood of correct responses, >= 0; 0.1.
      value_pretraining_steps: steps of the critic alone, >= 0; 50.
    Returns:
      The unreduced loss, 0 at unscored positions; the metrics of `ppo_clip` and of the critic, and
      the number of steps after this one as `value_steps`.
    Raises:
      ValueError: a number out of its range.
    Deviations: the likelihood is a mean over all tokens, where the paper's is over those of correct
      responses; weight decay moves the policy during the critic's steps, too.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0), a(-1.0), a(2.0), a(0.5), a(1.5), jnp.array([1.0]), jnp.array(0.0), a(True)
    >>> [round(vapo(*x, value_pretraining_steps=n)[0].item(), 3) for n in (0, 1)]
    [-1.85, 0.05]
    """
    for name, x in {
        "value_coef": value_coef,
        "positive_coef": positive_coef,
        "value_pretraining_steps": value_pretraining_steps,
    }.items():
        require(x >= 0, f"{name} must be >= 0, got {x}")
    clips = {"clip_low": clip_low, "clip_high": clip_high}
    policy, metrics = ppo_clip(token_logps, old_token_logps, advantages, mask, **clips)
    critic, of_critic = value_loss(values, returns, mask)
    (logps,) = scored(mask, token_logps)
    right = jnp.where(mask, jax.lax.stop_gradient(f32(correct)[0])[:, None], 0.0)
    # a running value starts as NaN
    # a mean over many tokens rounds
    done = jnp.round(jnp.nan_to_num(jnp.asarray(value_steps, jnp.float32)))
    learns = done >= value_pretraining_steps
    policy = jnp.where(learns, policy - positive_coef * right * logps, 0.0)
    steps = jnp.full(mask.shape, done + 1)
    return policy + value_coef * critic, metrics | of_critic | {"value_steps": steps}
