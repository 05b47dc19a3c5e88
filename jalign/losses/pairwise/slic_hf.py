"""SLiC-HF: sequence likelihood calibration with human feedback.

Zhao et al. 2023, "SLiC-HF: Sequence Likelihood Calibration with Human Feedback".
https://arxiv.org/abs/2305.10425.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def slic_hf(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    *,
    delta: float = 1.0,
    sft_coef: float = 0.1,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """max(0, delta - chosen + rejected) - sft_coef * chosen, with SUMMED log-probabilities.

    A hinge on the calibration of the pair and the likelihood of the chosen response, which replaces
    the paper's regularization target; no reference model. The hinge of GPO and TRL,
    max(0, 1 - beta * D) on log-RATIOS, is another loss (RSO's).

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      delta: margin the chosen response must lead by, nats per response, >= 0; 1.
      sft_coef: weight of the likelihood term (lambda), >= 0; 0.1 in HALOs, 0.5 by report in the
        paper.
    Returns:
      The unreduced loss, and the log-probabilities as `chosen_rewards`, `rejected_rewards`.
    Raises:
      ValueError: a number out of its range.
    Deviations: the paper's target may be another text than the chosen response. HALOs adds the
      hinge, [B], to the likelihood of every token, [B, T], by broadcasting; here both are sums.
    >>> import jax.numpy as jnp
    >>> float(slic_hf(jnp.array([-4.0]), jnp.array([-4.5]), sft_coef=0.25)[0][0])
    1.5
    """
    require(delta >= 0, f"delta must be >= 0, got {delta}")
    require(sft_coef >= 0, f"sft_coef must be >= 0, got {sft_coef}")
    chosen, rejected = f32(chosen_logps, rejected_logps)
    # both terms are per response: HALOs broadcasts [B] to [B, T], one hinge for every token
    loss = jax.nn.relu(delta - chosen + rejected) - sft_coef * chosen
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}
