"""The implicit reward of a policy trained with a DPO-like loss, per response and per token.

Rafailov et al. 2023 (DPO), https://arxiv.org/abs/2305.18290; of tokens: Rafailov et al. 2024, "From
r to Q*: Your Language Model is Secretly a Q-Function", https://arxiv.org/abs/2404.12358.

Plain functions of log-probabilities, not losses: for logging, ranking or training. The gradient is
not stopped; stop it to use them as rewards in reinforcement learning.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require


def implicit_rewards(
    logps: Float[Array, "*N"], ref_logps: Float[Array, "*N"], *, beta: float
) -> Float[Array, "*N"]:
    """beta * (log p(response) - log p_ref(response)): the reward, up to a constant of the prompt.

    Differences are therefore comparable among responses to ONE prompt only.

    Args:
      logps, ref_logps: of policy and reference, nats, SUMMED over response tokens, any shape.
      beta: that of the loss the policy was trained with, > 0.
    Returns:
      The rewards, of that shape.
    Raises:
      ValueError: beta <= 0.
    >>> import jax.numpy as jnp
    >>> implicit_rewards(jnp.array([-4.0, -9.5]), jnp.array([-5.0, -8.0]), beta=0.5).tolist()
    [0.5, -0.75]
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    logps, ref_logps = f32(logps, ref_logps)
    return beta * (logps - ref_logps)


def token_rewards(
    token_logps: Float[Array, "*N R"],
    ref_token_logps: Float[Array, "*N R"],
    mask: Bool[Array, "*N R"],
    *,
    beta: float,
) -> Float[Array, "*N R"]:
    """beta * (log p(token) - log p_ref(token)) where `mask`, 0 elsewhere.

    In the token-level view each is Q*(state, token) - V*(state), the advantage of the token; their
    sum over a response is its implicit reward. Useful for credit assignment, as a dense reward,
    and as the score of a beam search.

    Args:
      token_logps, ref_token_logps: of policy and reference, nats, <= 0.
      mask: where there is a token; values elsewhere may be NaN.
      beta: that of the loss the policy was trained with, > 0.
    Returns:
      One reward per token.
    Raises:
      ValueError: beta <= 0.
    >>> import jax.numpy as jnp
    >>> logps, ref = jnp.array([[-1.0, -2.0, 7.0]]), jnp.array([[-2.0, -1.5, 9.0]])
    >>> token_rewards(logps, ref, jnp.array([[True, True, False]]), beta=0.5).tolist()
    [[0.5, -0.25, 0.0]]
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    logps, ref_logps = f32(token_logps, ref_token_logps)
    # masked after a difference, whose derivative is constant: a NaN cannot reach the gradient
    return beta * jnp.where(mask, logps - ref_logps, 0.0)
