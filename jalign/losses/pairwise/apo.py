"""APO: anchored preference optimization, which sets the direction of BOTH responses.

D'Oosterlinck et al. 2024, "Anchored Preference Optimization and Contrastive Revisions: Addressing
Underspecification in Alignment". https://arxiv.org/abs/2408.06266, Eq. 7 and 8.
Single responses with labels: `jalign.losses.binary.apo`.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Logps = Float[Array, "B"]
Result = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def apo_zero(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """1 - sigmoid(beta * d_w) + sigmoid(beta * d_l), d the summed log-ratio of a response.

    Raises the chosen response and lowers the rejected one: for chosen responses BETTER than what
    the policy writes.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: scale of the implicit reward, > 0; 0.1.
    Returns:
      The unreduced loss, in [0, 2] and 1 at step 0, and the implicit rewards `chosen_rewards`,
      `rejected_rewards` (beta * log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: none.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(apo_zero(*x, beta=0.5)[0][0]), 4)
    0.7551
    """
    chosen, rejected = _rewards(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    # sigmoid(-x) keeps the digits that 1 - sigmoid(x) loses at a large x.
    loss = jax.nn.sigmoid(-chosen) + jax.nn.sigmoid(rejected)
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}


def apo_down(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """sigmoid(beta * d_w) + 1 - sigmoid(beta * (d_w - d_l)), d the summed log-ratio.

    Lowers both responses and the rejected one more: for chosen responses WORSE than what the policy
    writes.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: scale of the implicit reward, > 0; 0.1.
    Returns:
      The unreduced loss, in [0, 2] and 1 at step 0, and the implicit rewards `chosen_rewards`,
      `rejected_rewards` (beta * log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: none. At step 0 the two pulls on the chosen response cancel exactly.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(apo_down(*x, beta=0.5)[0][0]), 4)
    0.8914
    """
    chosen, rejected = _rewards(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta
    )
    # sigmoid(rejected - chosen) is 1 - sigmoid(chosen - rejected) without the cancellation
    loss = jax.nn.sigmoid(chosen) + jax.nn.sigmoid(rejected - chosen)
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}


def _rewards(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta: float,
) -> tuple[Array, Array]:
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
