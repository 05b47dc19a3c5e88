"""RainbowPO: the components of several DPO variants that add up, in one loss.

Zhao et al. 2024, "RainbowPO: A Unified Framework for Combining Improvements in Preference
Optimization". https://arxiv.org/abs/2410.04203.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def rainbow_po(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    ref_chosen_entropy: Float[Array, "B"],
    ref_rejected_entropy: Float[Array, "B"],
    *,
    beta: float = 10.0,
    alpha: float = 0.25,
    gamma: float = 0.1,
    dispersion_scale: float = 0.29,
    max_entropy: float = 11.76,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(beta * phi * (m - alpha * m_ref - (1 - alpha) * gamma)), one value per pair.

    m is the difference of the mean log-probabilities per token (length normalization), m_ref the
    same of the reference, mixed with the constant margin gamma. phi = -dispersion_scale * log(H /
    max_entropy) is Mallows-DPO's weight: H is the reference's entropy per token, the mean over both
    responses. Pairs that the reference is sure of count more.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_len, rejected_len: scored tokens, >= 1.
      ref_chosen_entropy, ref_rejected_entropy: of the reference's next-token distributions, nats,
        summed over response tokens, >= 0.
      beta: scale of the margin, > 0; 10.
      alpha: share of the reference in the mixture, in [0, 1]; 0.25. 1 is DPO's, 0 SimPO's.
      gamma: margin, nats per token, >= 0; 0.1.
      dispersion_scale: > 0; 0.29, at which phi is about 1 on average over the authors' data.
      max_entropy: log of the size of the vocabulary, nats, > 0; 11.76 is Llama 3's.
    Returns:
      The unreduced loss, and as `chosen_rewards`, `rejected_rewards` what it compares: beta * phi *
      (mean log p - alpha * mean log p_ref).
    Raises:
      ValueError: a number out of its range.
    Deviations: H / max_entropy is kept between 1e-6 and 1, so that phi is finite and >= 0; the
      authors' code reads the size of the vocabulary from the model.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 4.0, 3.0, 2.0, 4.5)]
    >>> round(float(rainbow_po(*x, beta=2.0)[0][0]), 4)
    0.1006
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require((alpha >= 0) & (alpha <= 1), f"alpha must be in [0, 1], got {alpha}")
    require(gamma >= 0, f"gamma must be >= 0, got {gamma}")
    require(dispersion_scale > 0, f"dispersion_scale must be > 0, got {dispersion_scale}")
    require(max_entropy > 0, f"max_entropy must be > 0, got {max_entropy}")
    # means per token of everything: beta 10 here is what about 0.1 is over sums
    n_chosen, n_rejected = f32(chosen_len, rejected_len)
    chosen, ref_chosen, chosen_entropy = (
        x / n_chosen for x in f32(chosen_logps, ref_chosen_logps, ref_chosen_entropy)
    )
    rejected, ref_rejected, rejected_entropy = (
        x / n_rejected for x in f32(rejected_logps, ref_rejected_logps, ref_rejected_entropy)
    )
    entropy = 0.5 * (chosen_entropy + rejected_entropy) / max_entropy
    # a weight above 1 of the entropy would reverse the preference
    phi = -dispersion_scale * jnp.log(jnp.clip(entropy, 1e-6, 1.0))
    margin = (chosen - rejected) - alpha * (ref_chosen - ref_rejected) - (1 - alpha) * gamma
    return -jax.nn.log_sigmoid(beta * phi * margin), {
        "chosen_rewards": beta * phi * (chosen - alpha * ref_chosen),
        "rejected_rewards": beta * phi * (rejected - alpha * ref_rejected),
    }
