"""Regression of a critic on returns, plain and clipped as in PPO's code.

Schulman et al. 2017, "Proximal Policy Optimization Algorithms". https://arxiv.org/abs/1707.06347,
Eq. 9; the clip is not in the paper but in the code of OpenAI (lm-human-preferences,
https://arxiv.org/abs/1909.08593) and of all that follow it.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import require
from jalign.losses._tokens import recorded, scored

Tokens = Float[Array, "B R"]
Out = tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]


def value_loss(values: Tokens, returns: Tokens, mask: Bool[Array, "B R"]) -> Out:
    """(V - R)^2 / 2 at each scored token.

    Args:
      values: V, of the critic, before each token.
      returns: R, the target; no gradient.
      mask: scored positions; values elsewhere are ignored.
    Returns:
      The unreduced loss, 0 at unscored positions, and it again as `value/loss`.
    Deviations: the half is that of public code; RLAIF (https://arxiv.org/abs/2309.00267) has none.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> value_loss(a(1.0, 2.0), a(3.0, 2.5), a(True, True))[0].tolist()
    [[2.0, 0.125]]
    """
    (v,), (r,) = scored(mask, values), recorded(mask, returns)
    loss = 0.5 * (v - r) ** 2
    return loss, {"value/loss": loss}


def value_clip(
    values: Tokens,
    old_values: Tokens,
    returns: Tokens,
    mask: Bool[Array, "B R"],
    *,
    value_clip: float = 0.2,
) -> Out:
    """max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2) / 2, with c = `value_clip`.

    Where the second is the larger, V has come closer to R by more than c and gets no gradient: the
    critic moves in small steps, as the policy does.

    Args:
      values: V, of the critic, before each token.
      old_values: V_old, the same when the responses were sampled; no gradient.
      returns: R; no gradient.
      mask: scored positions; values elsewhere are ignored.
      value_clip: c, in units of the reward, > 0; 0 is off, and `value_loss`. 0.2.
    Returns:
      The unreduced loss, 0 at unscored positions, and it again as `value/loss`; where the clipped
      square is the larger as `value/clip_ratio`.
    Raises:
      ValueError: value_clip < 0.
    Deviations: none.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> value_clip(a(1.0, 2.0), a(0.0, 2.0), a(1.5, 3.0), a(True, True), value_clip=0.5)[0].tolist()
    [[0.5, 0.5]]
    """
    require(value_clip >= 0, f"value_clip must be >= 0, got {value_clip}")
    (v,), (old, r) = scored(mask, values), recorded(mask, old_values, returns)
    # where, not if: value_clip may be traced
    far = jnp.where(value_clip > 0, value_clip, jnp.inf)
    near = old + jnp.clip(v - old, -far, far)
    plain, held = (v - r) ** 2, (near - r) ** 2
    # only where the clipped square is larger: a V that moved away from R needs its gradient
    bound = (jnp.abs(v - old) > far) & (held > plain)
    loss = 0.5 * jnp.where(bound, held, plain)
    return loss, {"value/loss": loss, "value/clip_ratio": bound.astype(jnp.float32)}
