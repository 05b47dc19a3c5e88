"""How much of a teacher's signal on the student's own tokens to trust, by where they stand."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32, require


def prefix_weights(
    advantages: Float[Array, "N R"], mask: Bool[Array, "N R"], *, prefix_gamma: float = 0.5
) -> Float[Array, "N R"]:
    """1 + prefix_gamma (1 - sum over earlier tokens of |A| / sum over all tokens of |A|).

    Importance-weighted on-policy distillation: the further the student has drifted from the
    teacher before a token, the less the teacher knows about it.

    Args:
      advantages: A, log p_teacher - log p of each token; values outside of the mask are ignored.
      mask: the tokens of each response.
      prefix_gamma: gamma, how much more the first token of a response weighs than one after all of
        the drift, >= 0; 0.5. At 0 all weights are 1.
    Returns:
      The weights, 0 outside of the mask.
    Raises:
      ValueError: prefix_gamma < 0.
    Source: Xie et al. 2026, "On the Position Bias of On-Policy Distillation", Algorithm 1.
      https://arxiv.org/abs/2606.22600. Equal to TRL's `iw_opd`, its stabilizer 1e-8 included.
    >>> prefix_weights(jnp.array([[1.0, -1.0, 2.0]]), jnp.ones((1, 3), bool)).tolist()
    [[1.5, 1.375, 1.25]]
    """
    require(prefix_gamma >= 0, f"prefix_gamma must be >= 0, got {prefix_gamma}")
    (a,) = f32(advantages)
    size = jnp.abs(jnp.where(mask, a, 0.0))
    # what lies before a token, without its own part: the first token has the full weight
    before = jnp.cumsum(size, -1) - size
    share = before / jnp.maximum(size.sum(-1, keepdims=True), 1e-8)
    return jnp.where(mask, 1 + prefix_gamma * (1 - share), 0.0)
