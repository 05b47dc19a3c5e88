"""Nash-MD: Nash learning from human feedback by mirror descent.

Munos et al. 2023, "Nash Learning from Human Feedback". https://arxiv.org/abs/2312.00886.

The response y is drawn from the policy, its opponent y' from the geometric mixture
p^(1 - b) ref^b, token by token; b = 0 is self-play, b = 1 the best response to the reference. The
opponent gets no gradient. So the loss sees y, and P(y > y') from the preference model.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._tokens import scored

Tokens = Float[Array, "B R"]
Mask = Bool[Array, "B R"]
Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def nash_md(
    token_logps: Tokens,
    ref_token_logps: Tokens,
    win_prob: Float[Array, "B"],
    mask: Mask,
    *,
    tau: float = 0.1,
) -> Out:
    """-stop_gradient(P - 1/2 - tau * d) log p(y), d = log p(y) - log p_ref(y) of the response.

    REINFORCE on the preference regularized by the KL divergence from the reference, with both sums
    over ALL tokens: a token answers for the divergence of what follows it too.

    Args:
      token_logps: log p of each scored token of y, nats, at the temperature of sampling.
      ref_token_logps: the same under the reference.
      win_prob: P, the probability that y is preferred to its opponent, in [0, 1]; no gradient.
      mask: scored positions; values elsewhere are ignored.
      tau: weight of the KL divergence, > 0; 0.1 (TRL), 0.008 to 0.02 in the paper.
    Returns:
      The unreduced loss per response, 0 where none is scored; `win_prob`; d as `kl_k1`.
    Raises:
      ValueError: tau <= 0.
    Deviations: the opponent's own KL term has no gradient and is left out.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.5, -2.5), jnp.array([1.0]), a(True, True)
    >>> nash_md(*x, tau=0.25)[0].tolist()  # -(1 - 0.5 - 0.25) * -3
    [0.75]
    """
    lead, logps, d = _parts(token_logps, ref_token_logps, win_prob, mask, tau)
    kl = d.sum(-1)
    # the weight is a reward: a gradient of its d would add tau * log p * grad log p
    loss = -jax.lax.stop_gradient(lead - tau * kl) * logps.sum(-1)
    return loss, {"win_prob": lead + 0.5, "kl_k1": kl}


def nash_md_token(
    token_logps: Tokens,
    ref_token_logps: Tokens,
    win_prob: Float[Array, "B"],
    mask: Mask,
    *,
    tau: float = 0.1,
) -> Out:
    """sum over tokens of stop_gradient(tau * d_t - (P - 1/2)) log p_t: TRL's form, for parity.

    BIASED: each token answers for its own log-ratio d_t only. What it does to the divergence of the
    tokens after it is left out, so this descends another objective than the paper's; `nash_md`
    does not.

    Args:
      token_logps, ref_token_logps, win_prob, mask, tau: as in `nash_md`.
    Returns:
      The unreduced loss per response, 0 where none is scored; `win_prob`; `kl_k1`.
    Raises:
      ValueError: tau <= 0.
    Deviations: from the paper as described; in value and gradient TRL's.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.5, -1.0), jnp.array([1.0]), a(True, True)
    >>> nash_md_token(*x, tau=0.25)[0].tolist()  # (0.125 - 0.5) * -1 + (-0.25 - 0.5) * -2
    [1.875]
    """
    lead, logps, d = _parts(token_logps, ref_token_logps, win_prob, mask, tau)
    loss = jnp.sum(jax.lax.stop_gradient(tau * d - lead[:, None]) * logps, -1)
    return loss, {"win_prob": lead + 0.5, "kl_k1": d.sum(-1)}


def _parts(
    token_logps: Array, ref_token_logps: Array, win_prob: Array, mask: Array, tau: float
) -> tuple[Array, Array, Array]:
    """P - 1/2, log p and the log-ratio of the tokens; 0 where nothing is scored."""
    require(tau > 0, f"tau must be > 0, got {tau}")
    logps, ref = scored(mask, token_logps, ref_token_logps)
    (p,) = f32(win_prob)
    # minus 1/2, the value of a fair game: a baseline, which leaves the gradient unbiased
    lead = jnp.where(mask.any(-1), jax.lax.stop_gradient(p) - 0.5, 0.0)
    return lead, logps, logps - ref
