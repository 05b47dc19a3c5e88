"""Robust DPO: DPO made unbiased under labels that are flipped at random.

Ray Chowdhury, Kini, Natarajan 2024, "Provably Robust DPO: Aligning Language Models with Noisy
Feedback". https://arxiv.org/abs/2403.00409.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def robust_dpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """(-(1 - e) log sigmoid(h) + e log sigmoid(-h)) / (1 - 2 e), h = beta * (difference of ratios).

    h takes the log-ratios SUMMED over tokens. Where each label is wrong with probability e, the
    expectation of this loss over the flips is the DPO loss of the true label. cDPO (`dpo` with
    `label_smoothing`) has a plus where this has a minus: it stops pulling at h = log((1 - e) / e),
    this never does, and the value falls below 0 without bound as h grows.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      label_smoothing: e, the probability that a label is flipped, in [0, 0.5). 0 is DPO; the
        variance grows with 1 / (1 - 2 e).
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: a number out of its range.
    Deviations: none. The name of e is TRL's, whose `loss_type="robust"` this is; TRL's default is
      0, and it warns where e is out of range.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(robust_dpo(*x, beta=0.5)[0][0]), 4)
    0.1883
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    # below 1/2: at 1/2 labels say nothing and 1 - 2 e is 0, above it the loss changes its sign
    require(
        (label_smoothing >= 0) & (label_smoothing < 0.5),
        f"label_smoothing must be in [0, 0.5), got {label_smoothing}",
    )
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    h = chosen_rewards - rejected_rewards
    kept = -(1 - label_smoothing) * jax.nn.log_sigmoid(h)
    flipped = -label_smoothing * jax.nn.log_sigmoid(-h)
    # unbiased under flipped labels, so it may be negative
    loss = (kept - flipped) / (1 - 2 * label_smoothing)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
