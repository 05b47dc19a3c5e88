"""Cal-DPO: DPO whose implicit rewards are calibrated to an absolute scale.

Xiao et al. 2024, "Cal-DPO: Calibrated Direct Preference Optimization for Language Model Alignment".
https://arxiv.org/abs/2412.14516.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def cal_dpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.002,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(h_w - h_l) + ((h_w - 1 / 2 beta)^2 + (h_l + 1 / 2 beta)^2) / 2.

    h is the log-ratio to the reference, SUMMED over tokens, without a beta. DPO fixes only the
    difference of the two; the squares also keep the chosen response from becoming less likely.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: the targets are h_w = 1 / 2 beta and h_l = -1 / 2 beta nats, > 0; 0.002 in the authors'
        config.
    Returns:
      The unreduced loss, and the log-ratios as `chosen_rewards`, `rejected_rewards`.
    Raises:
      ValueError: beta <= 0.
    Deviations: none from the authors' code, whose first term has no beta either.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.5)]
    >>> round(float(cal_dpo(*x, beta=0.25)[0][0]), 4)
    1.8264
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    chosen_ratio, rejected_ratio, target = chosen - ref_chosen, rejected - ref_rejected, 0.5 / beta
    # half of each square in nats, which at a small beta outweighs the first term by far
    calibration = (chosen_ratio - target) ** 2 + (rejected_ratio + target) ** 2
    loss = -jax.nn.log_sigmoid(chosen_ratio - rejected_ratio) + 0.5 * calibration
    return loss, {"chosen_rewards": chosen_ratio, "rejected_rewards": rejected_ratio}
