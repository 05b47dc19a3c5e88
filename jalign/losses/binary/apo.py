"""APO-zero on single responses labeled desirable or not. On pairs: `jalign.losses.pairwise.apo`.

D'Oosterlinck et al. 2024, "Anchored Preference Optimization and Contrastive Revisions".
https://arxiv.org/abs/2408.06266; the loss of a pair in two halves.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require


def apo_zero_unpaired(
    logps: Float[Array, "B"],
    ref_logps: Float[Array, "B"],
    label: Bool[Array, "B"] | Float[Array, "B"],
    *,
    beta: float = 0.1,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """1 - sigmoid(r) if desirable, sigmoid(r) if not; r = beta * (summed log-ratio).

    Raises the probability of desirable responses and lowers that of undesirable ones, whatever the
    rest of the batch does: the anchor is 0. It is KTO with z0 = 0 and both weights 1, without
    KTO's forward pass over mismatched responses.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      label: True (or 1, as the data hold it) where the response is desirable.
      beta: scale of the implicit reward, > 0; 0.1.
    Returns:
      The unreduced loss, in (0, 1), and `rewards` (r).
    Raises:
      ValueError: beta <= 0.
    Deviations: the paper has pairs; this form is in TRL's KTO trainer as
      `apo_zero_unpaired`. The mean over a desirable and an undesirable response is half the
      paper's loss of that pair.
    >>> import jax.numpy as jnp
    >>> logps, ref = jnp.array([-4.0, -9.5]), jnp.array([-5.0, -8.0])
    >>> loss, _ = apo_zero_unpaired(logps, ref, jnp.array([True, False]), beta=0.5)
    >>> [round(float(x), 4) for x in loss]
    [0.3775, 0.3208]
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    logps, ref_logps = f32(logps, ref_logps)
    rewards = beta * (logps - ref_logps)
    # the sign goes inside: 1 - sigmoid(r) loses its digits at a large r
    return jax.nn.sigmoid(jnp.where(label > 0.5, -rewards, rewards)), {"rewards": rewards}
