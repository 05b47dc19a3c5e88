"""XPO: exploratory preference optimization, online DPO with an exploration bonus.

Xie et al. 2024, "Exploratory Preference Optimization: Harnessing Implicit Q*-Approximation for
Sample-Efficient RLHF". https://arxiv.org/abs/2405.21046, Algorithm 1.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require
from jalign.losses.pairwise.dpo import dpo


def xpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    ref_response: Float[Array, "B"],
    *,
    beta: float = 0.1,
    alpha: float = 1e-5,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(h) + alpha * log p(y~), h as in DPO, y~ the response that the REFERENCE wrote.

    One response of each pair is drawn from the policy, the other from the reference. The second
    term lowers the probability of the reference's response, chosen or not, which frees probability
    for responses that were never sampled, whose reward is unknown and may be high.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      ref_response: 1 where the CHOSEN response was drawn from the reference, 0 where the rejected
        one was.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      alpha: weight of the exploration, per nat of the SUMMED log-probability, >= 0; 1e-5. 0 is
        online DPO.
    Returns:
      The unreduced loss, the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio), and log p(y~) as `ref_response_logps`.
    Raises:
      ValueError: a number out of its range.
    Deviations: none.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 0.0)]
    >>> round(float(xpo(*x, beta=0.5, alpha=0.01)[0][0]), 4)  # DPO's 0.3133 - 0.01 * 9
    0.2233
    """
    require(alpha >= 0, f"alpha must be >= 0, got {alpha}")
    pair = f32(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps)
    loss, metrics = dpo(*pair, beta=beta)
    # either side may be the reference's, whichever of the two the reward preferred
    explored = jnp.where(ref_response > 0.5, pair[0], pair[1])
    # plus: minimizing lowers log p of what the reference already writes; a minus would imitate it
    return loss + alpha * explored, metrics | {"ref_response_logps": explored}
