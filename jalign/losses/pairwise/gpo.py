"""GPO: one convex function of the margin for each way to learn from pairs; DPO is the logistic one.

Tang et al. 2024, "Generalized Preference Optimization: A Unified Approach to Offline Alignment".
https://arxiv.org/abs/2402.05749. Every loss is f(x) with f'(0) < 0 of

  x = beta * ((log p(chosen) - log p_ref(chosen)) - (log p(rejected) - log p_ref(rejected))),

log-probabilities SUMMED over response tokens. The logistic f(x) = log(1 + exp(-x)) is
`jalign.losses.dpo`. Around x = 0 all act alike; they differ in how far they push a pair that is
right already (x large) and how hard one that is very wrong (x far below 0).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Logps = Float[Array, "B"]
Result = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def gpo_hinge(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """max(0, 1 - x), x = beta * (chosen - rejected log-ratio): the hinge-norm loss of RSO.

    A pair whose x exceeds 1 has no gradient, all others the same. RSO (2309.06657) calls it
    hinge-norm, TRL `loss_type="hinge"`. It is not SLiC-HF, which has no reference.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; gamma in RSO, 0.05 there.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: none.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(gpo_hinge(*x)[0][0]), 4)
    0.8
    """
    x, rewards = _margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    return jax.nn.relu(1 - x), rewards


def gpo_squared(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """(x - 1)^2, x = beta * (chosen - rejected log-ratio): IPO up to a factor.

    It moves x towards 1 from either side. With beta = 2 tau it is 4 tau^2 times `ipo_sum`.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; the margin is drawn to 1 / beta nats.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: none. TRL has it only as IPO, over token means.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(gpo_squared(*x)[0][0]), 4)
    0.64
    """
    x, rewards = _margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    return (x - 1) ** 2, rewards


def gpo_exponential(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """exp(-x), x = beta * (chosen - rejected log-ratio): the loss of AdaBoost.

    The gradient grows without bound the more a pair is wrong: flipped labels dominate.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: x is clamped to >= -20, where the loss is 5e8; a pair beyond has no gradient. The
      formula is the standard one, not checked against code. TRL has no such loss.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(gpo_exponential(*x)[0][0]), 4)
    0.8187
    """
    x, rewards = _margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    # clamped: unbounded, a single flipped label would make up the gradient of its step
    return jnp.exp(-jnp.maximum(x, -20.0)), rewards


def gpo_truncated_quadratic(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """max(0, 1 - x)^2, x = beta * (chosen - rejected log-ratio): `gpo_squared` on one side of 1.

    A pair whose x exceeds 1 is left alone, where the squared loss and IPO pull it back.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: none known; the formula is the standard one, not checked against code. TRL has no
      such loss.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(gpo_truncated_quadratic(*x)[0][0]), 4)
    0.64
    """
    x, rewards = _margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    # relu inside the square: beyond 1 neither value nor gradient, where the plain square pulls back
    return jax.nn.relu(1 - x) ** 2, rewards


def gpo_savage(
    chosen_logps: Logps,
    rejected_logps: Logps,
    ref_chosen_logps: Logps,
    ref_rejected_logps: Logps,
    *,
    beta: float = 0.1,
) -> Result:
    """sigmoid(-x)^2 = 1 / (1 + exp(x))^2, x = beta * (chosen - rejected log-ratio).

    Bounded by 1 and not convex, though the framework asks for convexity: a pair that is very wrong
    has almost no gradient, so a flipped label does little harm.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
    Returns:
      The unreduced loss, in [0, 1], and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: beta <= 0.
    Deviations: none known; the formula is the standard one, not checked against code. TRL has no
      such loss.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(gpo_savage(*x)[0][0]), 4)
    0.2026
    """
    x, rewards = _margin(chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, beta)
    # 1 / (1 + exp(x))^2 has the gradient 0 * inf = NaN from x = 89 on
    return jax.nn.sigmoid(-x) ** 2, rewards


def _margin(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    beta: float,
) -> tuple[Array, dict[str, Array]]:
    """x of a pair, and the two rewards whose difference it is."""
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    rewards = {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
    return chosen_rewards - rejected_rewards, rewards
