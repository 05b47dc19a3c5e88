"""RLOO: REINFORCE leave-one-out, with the response as the action.

Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE Style Optimization for Learning from
Human Feedback in LLMs". https://arxiv.org/abs/2402.14740. The baseline is in the advantages
(`jalign.advantages.leave_one_out`).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._tokens import (
    approx_kl,
    bounded,
    clipped,
    log_ratios,
    mean_of_response,
    of_response,
    recorded,
)


def rloo(
    token_logps: Float[Array, "B R"],
    old_token_logps: Float[Array, "B R"],
    advantages: Float[Array, "B R"],
    mask: Bool[Array, "B R"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), rho = p(response) / p_old(response).

    rho is the PRODUCT over tokens. In the first step on a rollout it is 1, and the gradient that of
    -A * log p(response). After that it leaves the bounds soon, the sooner the longer the response:
    take one step per rollout, or a loss with ratios of tokens.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A of the response at its tokens; the first one is read. No gradient.
      mask: scored positions; values elsewhere are ignored.
      clip_low, clip_high: distances of rho from 1, > 0; 0.2.
    Returns:
      The unreduced loss per response; rho as `ratio`; where a bound holds as `clip_ratio/low_mean`
      (A < 0) and `clip_ratio/high_mean` (A > 0); `approx_kl`, nats per token.
    Raises:
      ValueError: a number out of its range.
    Deviations: the paper takes one step, without ratio; the clip is TRL's. log rho is clamped to
      +-20. verl and OpenRLHF take ratios of tokens: `ppo_clip` with these advantages.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.5, -1.75), a(3.0, 3.0), a(True, True)
    >>> rloo(*x, clip_high=0.25)[0].tolist()  # rho is exp(0.25)
    [-3.75]
    """
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    # the sum over a long response overflows exp in float32
    ratio = jnp.exp(bounded(log_ratio.sum(-1)))
    (a,) = recorded(mask, advantages)
    # a response is one action: its advantage is repeated at every token and read once
    loss, metrics = clipped(ratio, of_response(a, mask), clip_low, clip_high)
    kl = mean_of_response(approx_kl(log_ratio), mask)
    return loss, metrics | {"ratio": ratio, "approx_kl": kl}
