"""f-DPO: DPO whose regularizer is another f-divergence than the reverse KL.

Wang et al. 2023, "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse
Divergence Constraints". https://arxiv.org/abs/2309.16240. With d the summed log-ratio of a response
and g(d) = f'(exp(d)) every loss is

  -log sigmoid(beta * (g(d_chosen) - g(d_rejected))).

Reverse KL has g(d) = d and is `jalign.losses.dpo`. The forward KL and the alpha-divergence take
exp(-d) of a SUMMED log-ratio, which explodes where the policy leaves the reference's support: start
from the reference. Their exponents are clamped at 80, beyond which g is constant.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Logps = Float[Array, "B"]
Result = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def f_dpo_forward_kl(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """-log sigmoid(beta * (g(d_w) - g(d_l))) with g(d) = 1 - exp(-d): the forward KL.

    It punishes a response that falls below the reference exponentially and gains little, less than
    beta, from one that rises above it.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: weight of the divergence, > 0; 0.1.
    Returns:
      The unreduced loss, and the rewards `chosen_rewards`, `rejected_rewards` (beta * g).
    Raises:
      ValueError: beta <= 0.
    Deviations: -d is clamped to <= 80 in the exponential, TRL 1.16 does not clamp here. TRL logs
      beta * d as rewards, here it is what the loss compares.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(f_dpo_forward_kl(*x, beta=0.5)[0][0]), 4)
    0.2691
    """
    ratios = _ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    # 80, since exp overflows float32 at 88.7 and the difference of two values must stay finite
    return _compare(lambda d: -jnp.expm1(jnp.minimum(-d, 80.0)), ratios, beta)


def f_dpo_js(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """-log sigmoid(beta * (g(d_w) - g(d_l))), g(d) = log 2 + log sigmoid(d): Jensen-Shannon.

    Below the reference g is that of the reverse KL up to log 2, above it is bounded by log 2: a
    compromise between the two divergences of Kullback and Leibler, with no exponential to explode.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: weight of the divergence, > 0; 0.1.
    Returns:
      The unreduced loss, and the rewards `chosen_rewards`, `rejected_rewards` (beta * g).
    Raises:
      ValueError: beta <= 0.
    Deviations: none; TRL logs beta * d as rewards, here it is what the loss compares.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(f_dpo_js(*x, beta=0.5)[0][0]), 4)
    0.4741
    """
    ratios = _ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    # + log 2, so that g is 0 at the reference and the logged rewards start at 0
    return _compare(lambda d: math.log(2) + jax.nn.log_sigmoid(d), ratios, beta)


def f_dpo_alpha(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Result:
    """-log sigmoid(beta * (g(d_w) - g(d_l))) with g(d) = (1 - exp(-alpha * d)) / alpha.

    The alpha-divergence, between the reverse KL (alpha to 0) and the forward KL (alpha to 1).

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: weight of the divergence, > 0; 0.1, and 0.3 in the authors' run with alpha = 0.3.
      alpha: in (0, 1); the authors try 0.3, 0.5, 0.7.
    Returns:
      The unreduced loss, and the rewards `chosen_rewards`, `rejected_rewards` (beta * g).
    Raises:
      ValueError: a number out of its range.
    Deviations: alpha is the authors'; TRL's `f_alpha_divergence_coef` is 1 - alpha. The exponent is
      clamped to <= 80 as in TRL. TRL logs beta * d as rewards, here it is what the loss compares.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(f_dpo_alpha(*x, beta=0.5)[0][0]), 4)
    0.3021
    """
    require((alpha > 0) & (alpha < 1), f"alpha must be in (0, 1), got {alpha}")
    ratios = _ratios(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    # expm1, since 1 - exp(-alpha d) loses its digits at a small alpha
    return _compare(lambda d: -jnp.expm1(jnp.minimum(-alpha * d, 80.0)) / alpha, ratios, beta)


def _ratios(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta: float,
) -> tuple[Array, Array]:
    """d of the chosen and of the rejected response."""
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return chosen - ref_chosen, rejected - ref_rejected


def _compare(
    g: Callable[[Array], Array], ratios: tuple[Array, Array], beta: float
) -> tuple[Array, dict[str, Array]]:
    """The logistic loss of the values of g."""
    chosen, rejected = ratios
    # TRL logs beta * d; a reward that the loss does not compare would mislead
    g_chosen, g_rejected = g(chosen), g(rejected)
    # beta times the difference: of two products that are equal and huge, a fused multiply-add
    # leaves a rest, which differs between the passes, so that the gradient was NaN
    loss = -jax.nn.log_sigmoid(beta * (g_chosen - g_rejected))
    return loss, {"chosen_rewards": beta * g_chosen, "rejected_rewards": beta * g_rejected}
