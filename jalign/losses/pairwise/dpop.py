"""DPOP (DPO-Positive): DPO that does not let the chosen response become less likely.

Pal et al. 2024, "Smaug: Fixing Failure Modes of Preference Optimization with DPO-Positive".
https://arxiv.org/abs/2402.13228, Eq. 3.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def dpop(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.3,
    lam: float = 50.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta * (d_w - d_l - lam * max(0, -d_w))), d the summed log-ratio of a response.

    d_w is of the chosen and d_l of the rejected response. DPO's loss also falls where both fall, if
    the rejected one falls faster; here every nat that the chosen response loses against the
    reference costs as much as lam nats of margin.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; 0.3.
      lam: lambda, weight of the penalty, >= 0; the paper sweeps 5 to 500. 0 is DPO.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio, without the penalty).
    Raises:
      ValueError: a number out of its range.
    Deviations: none from the paper: the penalty is inside the sigmoid and is multiplied by
      beta. Several public copies put it outside, one with the wrong sign. TRL has no DPOP. At step
      0 d_w is exactly 0 and the penalty has no gradient yet.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-5.5, -9.0, -5.0, -8.0)]
    >>> round(float(dpop(*x, lam=0.0)[0][0]), 4), round(float(dpop(*x, lam=5.0)[0][0]), 4)
    (0.621, 1.0375)
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(lam >= 0, f"lam must be >= 0, got {lam}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    chosen_ratio, rejected_ratio = chosen - ref_chosen, rejected - ref_rejected
    # nats by which the chosen response fell below the reference; 0 and no gradient above it
    lost = jax.nn.relu(-chosen_ratio)
    # inside the sigmoid (Eq. 3): outside, the penalty would keep its gradient on right pairs
    loss = -jax.nn.log_sigmoid(beta * (chosen_ratio - rejected_ratio - lam * lost))
    return loss, {"chosen_rewards": beta * chosen_ratio, "rejected_rewards": beta * rejected_ratio}
