"""REINFORCE: the plain policy gradient, with and without a learned baseline.

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
Learning"; for language models: Lee et al. 2023, "RLAIF", https://arxiv.org/abs/2309.00267, appendix
A.3, and ReMax, Li et al. 2023, https://arxiv.org/abs/2310.10505.
"""

from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import recorded, scored
from jalign.losses.policy.value import value_loss

Tokens = Float[Array, "B R"]
Out = tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]


def reinforce(token_logps: Tokens, advantages: Tokens, mask: Bool[Array, "B R"]) -> Out:
    """-A log p(token), whose gradient on samples of the policy itself is the policy gradient.

    For one gradient step per rollout: nothing corrects for samples of an older policy (use
    `ppo_clip`). The value has no meaning, only the gradient does.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      advantages: A, the reward to go minus a baseline that does not depend on the token (the mean
        of the batch, a critic's value, the score of the greedy response: ReMax); no gradient.
      mask: scored positions; values elsewhere are ignored.
    Returns:
      The unreduced loss, 0 at unscored positions, and no metrics.
    Deviations: ReMax's authors discount with gamma 0.99 and clip; that is part of the advantages.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> reinforce(a(-1.0, -0.5), a(2.0, -3.0), a(True, True))[0].tolist()
    [[2.0, -1.5]]
    """
    # log p, not a ratio: on fresh samples both have the same gradient, and nothing must be recorded
    (logps,), (a,) = scored(mask, token_logps), recorded(mask, advantages)
    return -a * logps, {}


def reinforce_with_value(
    token_logps: Tokens,
    advantages: Tokens,
    values: Tokens,
    returns: Tokens,
    mask: Bool[Array, "B R"],
    *,
    value_coef: float = 0.1,
) -> Out:
    """-A log p(token) + value_coef * (V - R)^2 / 2: REINFORCE and the critic that is its baseline.

    Args:
      token_logps, advantages, mask: as in `reinforce`, with A = R - V of the rollout.
      values: V, of the critic, before each token.
      returns: R, the reward to go; no gradient.
      value_coef: weight of the critic's loss, >= 0; 0.1.
    Returns:
      The unreduced loss, 0 at unscored positions, and the critic's part as `value/loss`.
    Raises:
      ValueError: value_coef < 0.
    Deviations: the square is halved, as in `ppo`; RLAIF's is not, and its weight is not given.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -0.5), a(2.0, -3.0), a(1.0, 2.0), a(3.0, 2.0), a(True, True)
    >>> reinforce_with_value(*x, value_coef=0.5)[0].tolist()
    [[3.0, -1.5]]
    """
    require(value_coef >= 0, f"value_coef must be >= 0, got {value_coef}")
    # A comes from recorded values, so the policy term has no gradient in the critic
    policy, _ = reinforce(token_logps, advantages, mask)
    # unclipped: in a rollout's first step values have not moved, so a clip would not hold
    critic, metrics = value_loss(values, returns, mask)
    return policy + value_coef * critic, metrics
