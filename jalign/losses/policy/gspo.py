"""GSPO: group sequence policy optimization, importance ratios of whole responses.

Zheng et al. 2025, "Group Sequence Policy Optimization". https://arxiv.org/abs/2507.18071, Eq. 5 and
7 (GSPO), 13 and 14 (GSPO-token).
"""

import jax
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

Tokens = Float[Array, "B R"]
Mask = Bool[Array, "B R"]


def gspo(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Mask,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """max(-A s, -A clip(s, 1 - clip_low, 1 + clip_high)), s = (p / p_old of the response)^(1/len).

    s is the geometric mean of the tokens' ratios: a response is clipped whole, and one odd token
    (as a mixture of experts makes them, when it routes anew) does not weigh a gradient by itself.

    Args:
      token_logps: log p of each scored token, nats, at the temperature of sampling.
      old_token_logps: the same under the policy that sampled; no gradient.
      advantages: A of the response at its tokens; the first one is read. No gradient.
      mask: scored positions; values elsewhere are ignored.
      clip_low, clip_high: distances of s from 1, > 0; 3e-4 and 4e-4: a mean moves far less than
        one token's ratio.
    Returns:
      The unreduced loss per response; s as `ratio`; where a bound holds as `clip_ratio/low_mean`
      (A < 0) and `clip_ratio/high_mean` (A > 0); `approx_kl`, nats per token.
    Raises:
      ValueError: a number out of its range.
    Deviations: log s is clamped to +-20.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.5, -1.5), a(3.0, 3.0), a(True, True)
    >>> gspo(*x)[0].tolist()
    [-3.0]
    """
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    # the mean is clamped, not the tokens: these would lose their gradient within the bounds of s
    ratio = jnp.exp(bounded(mean_of_response(log_ratio, mask)))
    (a,) = recorded(mask, advantages)
    # the clip acts on a whole response, so its tokens must agree on the sign of A
    loss, metrics = clipped(ratio, of_response(a, mask), clip_low, clip_high)
    kl = mean_of_response(approx_kl(log_ratio), mask)
    return loss, metrics | {"ratio": ratio, "approx_kl": kl}


def gspo_token(
    token_logps: Tokens,
    old_token_logps: Tokens,
    advantages: Tokens,
    mask: Mask,
    *,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
) -> tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]:
    """`gspo` with an advantage per token: the ratio of the response, the gradient of the token.

    max(-A_t s_t, -A_t clip(s_t, ...)), s_t = stop_gradient(s) p(token) / stop_gradient(p(token)).
    With equal advantages its mean over a response's tokens has the value and the gradient of
    `gspo`; so take the mean over responses of the mean over tokens.

    Args:
      token_logps, old_token_logps, mask: as in `gspo`.
      advantages: A_t, one per token; no gradient.
      clip_low, clip_high: distances of s from 1, > 0; 3e-4 and 4e-4.
    Returns:
      The unreduced loss per token, 0 at unscored positions; the metrics of `gspo` per token.
    Raises:
      ValueError: a number out of its range.
    Deviations: log s is clamped to +-20.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.5, -1.5), a(3.0, -2.0), a(True, True)
    >>> gspo_token(*x)[0].tolist()
    [[-3.0, 2.0]]
    """
    log_ratio = log_ratios(token_logps, old_token_logps, mask)
    log_s = bounded(jax.lax.stop_gradient(mean_of_response(log_ratio, mask)))
    # in value the ratio of the response, in gradient that of the token alone
    ratio = jnp.exp(log_s)[:, None] * jnp.exp(log_ratio - jax.lax.stop_gradient(log_ratio))
    (a,) = recorded(mask, advantages)
    loss, metrics = clipped(ratio, a, clip_low, clip_high)
    return loss, metrics | {"ratio": ratio, "approx_kl": approx_kl(log_ratio)}
