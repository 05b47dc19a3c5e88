"""R-DPO: DPO with a reward for brevity.

Park et al. 2024, "Disentangling Length from Quality in Direct Preference Optimization".
https://arxiv.org/abs/2403.19159, Eq. 9.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def r_dpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    *,
    beta: float = 0.1,
    alpha: float = 0.01,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta * (d_w - d_l) + alpha * (len_w - len_l)), d the summed log-ratio.

    The sign is PLUS: a chosen response that is the longer one is credited with what its length
    explains, so that the pair's gradient is smaller; that of a shorter chosen response is larger.
    Lengths are constants, so only the weight of a pair's gradient changes, not its direction.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_len, rejected_len: scored tokens, >= 1.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      alpha: credit per token, in reward units (not times beta), >= 0; about 0.005 to 0.05, and
        0.05 to 1 in SimPO's comparison. 0 is DPO.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio, without the lengths).
    Raises:
      ValueError: a number out of its range.
    Deviations: none; the default of alpha is from knowledge of the paper, not checked. TRL has no
      R-DPO.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 14.0, 8.0)]
    >>> round(float(r_dpo(*x, alpha=0.0)[0][0]), 4), round(float(r_dpo(*x, alpha=0.1)[0][0]), 4)
    (0.5981, 0.3711)
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(alpha >= 0, f"alpha must be >= 0, got {alpha}")
    chosen, rejected, ref_chosen, ref_rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_len, rejected_len
    )
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    # plus: a minus would ask a longer chosen response for more margin, and so teach length
    h = chosen_rewards - rejected_rewards + alpha * (n_chosen - n_rejected)
    loss = -jax.nn.log_sigmoid(h)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
