"""CPO: contrastive preference optimization (its preference term), or DPO without a reference.

Xu et al. 2024, "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in
Machine Translation". https://arxiv.org/abs/2401.08417.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def cpo(
    chosen_logps: Float[Array, "B"], rejected_logps: Float[Array, "B"], *, beta: float = 0.1
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta * (chosen - rejected)), with SUMMED log-probabilities.

    This is DPO with a uniform reference, what other libraries call reference-free DPO. The whole
    objective of CPO is this plus the negative log-likelihood of the chosen responses
    (`losses.nll`); the catalogue's `cpo` adds it with weight `nll_coef` = 1, averaged over the
    response tokens of the batch. The two terms scale differently with length, by design.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      beta: scale of the log-probabilities' difference, > 0; 0.1.
    Returns:
      The unreduced loss, and beta * log-probability as `chosen_rewards`, `rejected_rewards`.
    Raises:
      ValueError: beta <= 0.
    Deviations: TRL's cross-entropy also counts the prompt tokens, as its ORPO does. Its options
      hinge, ipo and simpo are losses of their own here.
    >>> import jax.numpy as jnp
    >>> round(float(cpo(jnp.array([-4.0]), jnp.array([-9.0]))[0][0]), 4)
    0.4741
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected = f32(chosen_logps, rejected_logps)
    # sums: with means per token this would be SimPO without a margin, not DPO without a reference
    chosen_rewards, rejected_rewards = beta * chosen, beta * rejected
    loss = -jax.nn.log_sigmoid(chosen_rewards - rejected_rewards)
    return loss, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
