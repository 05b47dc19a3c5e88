"""Penalties on the KL divergence from the reference, per token, as terms beside a policy loss.

Schulman 2020, "Approximating KL Divergence" (k1, k2, k3); k3 as a term: GRPO,
https://arxiv.org/abs/2402.03300, Eq. 4; the ratio: DeepSeek-V3.2, https://arxiv.org/abs/2512.02556.

With d = log p(token) - log p_ref(token), on samples of the policy p itself:

    estimator    value     E[value]           E[gradient]
    k1           d         KL(p || ref)       0
    k2           d^2/2     another, near it   gradient of KL(p || ref)
    k3           e^-d-1+d  KL(p || ref)       gradient of KL(ref || p)
    rho * k3               KL(p || ref)       gradient of KL(p || ref)

So k1 is not offered: as a loss its gradient is 0 on average, whatever its value. It belongs in
the reward (`jalign.advantages`), where k3 does not. All hold token by token: none follows
how a token changes those after it, as a KL in the reward does.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._tokens import bounded, log_ratios, scored

Tokens = Float[Array, "B R"]
Mask = Bool[Array, "B R"]
Out = tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]

MOST = 10.0  # nats: what one token's k3 may cost


def kl_k2(token_logps: Tokens, ref_token_logps: Tokens, mask: Mask) -> Out:
    """d^2 / 2, with d = log p(token) - log p_ref(token): the penalty to take on own samples.

    Args:
      token_logps: log p of each scored token, nats.
      ref_token_logps: the same under the reference.
      mask: scored positions; values elsewhere are ignored.
    Returns:
      The unreduced term, nats, 0 at unscored positions, and it again as `kl_k2`.
    Deviations: none; d is not clamped, so that a token far off is drawn back.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> kl_k2(a(-1.0, -2.0), a(-3.0, -1.0), a(True, True))[0].tolist()
    [[2.0, 0.5]]
    """
    logps, ref = scored(mask, token_logps, ref_token_logps)
    # unclamped, unlike k3: a square does not overflow, and a clamp would let a far token go
    loss = 0.5 * (logps - ref) ** 2
    return loss, {"kl_k2": loss}


def kl_k3(token_logps: Tokens, ref_token_logps: Tokens, mask: Mask) -> Out:
    """exp(-d) - 1 + d, with d = log p(token) - log p_ref(token): GRPO's penalty.

    Never negative, and of little variance as an estimate. Its gradient is that of the FORWARD
    divergence KL(ref || p); for that of KL(p || ref) take `kl_k2` or `kl_k3_ratio`.

    Args:
      token_logps, ref_token_logps, mask: as in `kl_k2`.
    Returns:
      The unreduced term, nats, 0 at unscored positions, and it again as `kl_k3`.
    Deviations: d is clamped to +-20 and the value to 10, as in verl; no gradient beyond. TRL clamps
      nothing.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> round(float(kl_k3(a(-1.0), a(-3.0), a(True))[0][0, 0]), 4)
    1.1353
    """
    logps, ref = scored(mask, token_logps, ref_token_logps)
    loss = _k3(logps - ref)
    return loss, {"kl_k3": loss}


def kl_k3_ratio(
    token_logps: Tokens, old_token_logps: Tokens, ref_token_logps: Tokens, mask: Mask
) -> Out:
    """rho * k3, rho = p(token) / p_old(token), with the gradient of both: k3 made unbiased.

    The gradient is that of KL(p || ref) in expectation over samples of the OLD policy, so also in
    later steps on a rollout.

    Args:
      token_logps, ref_token_logps, mask: as in `kl_k2`.
      old_token_logps: log p of the tokens under the policy that sampled, nats; no gradient.
    Returns:
      The unreduced term, nats, 0 at unscored positions, and it again as `kl_k3_ratio`.
    Deviations: log rho is clamped to +-20; k3 as in `kl_k3`, but where its value is clamped the
      gradient through rho remains. TRL 1.16 has this form as its default, unclamped.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> round(float(kl_k3_ratio(a(-1.0), a(-0.5), a(-3.0), a(True))[0][0, 0]), 4)
    0.6886
    """
    logps, ref = scored(mask, token_logps, ref_token_logps)
    # rho keeps its gradient: k3 alone has that of the forward KL
    loss = jnp.exp(bounded(log_ratios(token_logps, old_token_logps, mask))) * _k3(logps - ref)
    return loss, {"kl_k3_ratio": loss}


def kl_k3_straight_through(token_logps: Tokens, ref_token_logps: Tokens, mask: Mask) -> Out:
    """The value of k3, which estimates KL(p || ref), and the gradient of k2, which is its gradient.

    Args:
      token_logps, ref_token_logps, mask: as in `kl_k2`.
    Returns:
      The unreduced term, nats, 0 at unscored positions, and it again as `kl_k3`.
    Deviations: the value as in `kl_k3`, the gradient as in `kl_k2`. verl calls it `k3+`.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> round(float(kl_k3_straight_through(a(-1.0), a(-3.0), a(True))[0][0, 0]), 4)
    1.1353
    """
    value, slope = (f(token_logps, ref_token_logps, mask)[0] for f in (kl_k3, kl_k2))
    # `slope` cancels in value and stays in the gradient
    loss = slope + jax.lax.stop_gradient(value - slope)
    return loss, {"kl_k3": loss}


def _k3(d: Array) -> Array:
    d = bounded(d)
    # expm1: near d = 0 the value is d^2 / 2, which exp(-d) - 1 + d rounds away. MOST as in verl: a
    # token that the reference excludes would otherwise outweigh the batch
    return jnp.minimum(jnp.expm1(-d) + d, MOST)
