"""Nash-MP: Nash mirror prox, by policy gradient against a target that follows slowly.

Tiapkin et al. 2025, "Accelerating Nash Learning from Human Feedback via Mirror Prox".
https://arxiv.org/abs/2505.19731.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require
from jalign.losses._tokens import scored

Tokens = Float[Array, "B R"]


def nash_mp(
    token_logps: Tokens,
    ref_token_logps: Tokens,
    last_token_logps: Tokens,
    win_prob: Float[Array, "B"],
    mask: Bool[Array, "B R"],
    *,
    beta: float = 0.1,
    eta: float = 10.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-stop_gradient(P - 1/2 - beta d_ref - d_last / eta) log p(y), d = log p(y) - log p_x(y).

    REINFORCE on P(p > target) - beta KL(p || ref) - KL(p || target) / eta: a proximal step from the
    target, against the target. As in `nash_md` the sums are over ALL tokens.

    Args:
      token_logps: log p of each scored token of y, nats, at the temperature of sampling.
      ref_token_logps: the same under the reference, which stays.
      last_token_logps: the same under the target, an average of the policy.
      win_prob: P, the probability that y is preferred to a response of the target, in [0, 1]; no
        gradient.
      mask: scored positions; values elsewhere are ignored.
      beta: weight of the KL divergence from the reference, > 0; 0.1.
      eta: size of the proximal step, > 0; 10, that is 0.1 nat per nat from the target.
    Returns:
      The unreduced loss per response, 0 where none is scored; `win_prob`; d_ref as `kl_k1`; d_last
      as `kl_to_last`.
    Raises:
      ValueError: beta <= 0 or eta <= 0.
    Deviations: derived here and not compared with the paper's text or code, of which only the
      abstract was there. Mirror prox on P(p > q) - beta KL(p || ref) + beta KL(q || ref) takes two
      proximal steps from the same policy p_k: h maximizes P(h > p_k) - beta KL(h || ref) -
      KL(h || p_k) / eta, and p_k+1 the same with P(p_k+1 > h). Both are this loss, its win_prob
      against p_k and against h, last_token_logps of p_k; with eta 2 they have the rate of the
      abstract, KL(equilibrium || p) <= (1 + 2 beta)^(-N / 2) after N queries
      (tests/test_nash_games.py). The row `nash_mp` takes the first step alone, against a target
      that follows: with a fixed target it ends at h, with one that follows at the equilibrium
      of the regularized game, which mirror prox has, too.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-1.0, -2.0), a(-1.5, -2.5), a(-1.0, -2.5), jnp.array([1.0]), a(True, True)
    >>> nash_mp(*x, beta=0.25, eta=4.0)[0].tolist()  # -(0.5 - 0.25 - 0.125) * -3
    [0.375]
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(eta > 0, f"eta must be > 0, got {eta}")
    logps, ref, last = scored(mask, token_logps, ref_token_logps, last_token_logps)
    (p,) = f32(win_prob)
    # an empty slot has no tokens, and NaN times their 0 would still be NaN
    lead = jnp.where(mask.any(-1), jax.lax.stop_gradient(p) - 0.5, 0.0)
    to_ref, to_last = (logps - ref).sum(-1), (logps - last).sum(-1)
    # the weight is a reward: no gradient flows through the divergences in it
    weight = jax.lax.stop_gradient(lead - beta * to_ref - to_last / eta)
    metrics = {"win_prob": lead + 0.5, "kl_k1": to_ref, "kl_to_last": to_last}
    return -weight * logps.sum(-1), metrics
