"""DPO: direct preference optimization, and its label-smoothed form cDPO.

Rafailov et al. 2023. https://arxiv.org/abs/2305.18290, Eq. 7; cDPO: Mitchell 2023, "A note on DPO
with noisy preferences".
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def dpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-(1 - e) log sigmoid(h) - e log sigmoid(-h), with h = beta * (chosen - rejected log-ratio).

    The log-ratio of a response is log p(response) - log p_ref(response), SUMMED over its tokens.

    Args:
      chosen_logps: log p(chosen | prompt), nats, summed over response tokens.
      rejected_logps: the same for the rejected response.
      ref_chosen_logps: log p_ref(chosen | prompt) under the reference, nats.
      ref_rejected_logps: the same for the rejected response.
      beta: inverse temperature of the implicit reward, > 0; 0.01 to 0.5 in practice.
      label_smoothing: e, the probability that a label is flipped, in [0, 0.5). 0 is DPO.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: a number out of its range.
    Deviations: TRL 1.16 reads `label_smoothing` only in some of its loss types; here it always
      counts. At step 0 the policy is the reference and the loss is log 2 (in bfloat16
      but for a noise of up to about 0.1 nat per response: `jalign.kernels.compiler_options`).
    >>> import jax.numpy as jnp
    >>> x = jnp.array([-4.0]), jnp.array([-9.0]), jnp.array([-5.0]), jnp.array([-8.0])
    >>> round(float(dpo(*x, beta=0.5)[0][0]), 4)
    0.3133
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(
        0 <= label_smoothing < 0.5, f"label_smoothing must be in [0, 0.5), got {label_smoothing}"
    )
    # float32 before the differences: at 300 nats bfloat16 has steps of 2
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    # ratios to the reference first: at step 0 they are exactly 0, and so is h
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    h = chosen_rewards - rejected_rewards
    loss = -(1 - label_smoothing) * jax.nn.log_sigmoid(h) - label_smoothing * jax.nn.log_sigmoid(-h)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
