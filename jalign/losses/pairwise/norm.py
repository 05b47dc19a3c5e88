"""Length-normalized DPO, as Tulu 3 trains it.

Lambert et al. 2024, "Tulu 3: Pushing Frontiers in Open Language Model Post-Training".
https://arxiv.org/abs/2411.15124.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def dpo_norm(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    *,
    beta: float = 5.0,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta * (d_w / len_w - d_l / len_l)), d the summed log-ratio of a response.

    The reward is the MEAN log-ratio of a token, so that a long response has no larger one than a
    short response of the same kind. It is SimPO's reward with a reference, without the margin; TRL
    calls the loss `sigmoid_norm`.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_len, rejected_len: scored tokens, >= 1.
      beta: scale of the reward, > 0. 5 in Tulu 3: per token, so much larger than DPO's 0.1; two
        responses of n tokens get DPO's loss with beta / n.
    Returns:
      The unreduced loss, and the rewards `chosen_rewards`, `rejected_rewards`
      (beta * mean log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: none; the form is TRL 1.16's, beta = 5 is from knowledge of the paper [PAPER]. TRL
      logs beta * SUMMED log-ratio as rewards, also here.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 8.0, 10.0)]
    >>> round(float(dpo_norm(*x)[0][0]), 4)
    0.2812
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_len, rejected_len
    )
    # n counts exactly the summed tokens: with another count beta would differ from pair to pair
    chosen_rewards = beta * (chosen - ref_chosen) / n_chosen
    rejected_rewards = beta * (rejected - ref_rejected) / n_rejected
    loss = -jax.nn.log_sigmoid(chosen_rewards - rejected_rewards)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
