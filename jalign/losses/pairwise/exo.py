"""EXO: efficient exact optimization, in its form for preference pairs.

Ji et al. 2024, "Towards Efficient Exact Optimization of Language Model Alignment".
https://arxiv.org/abs/2402.00856, EXO-pref.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require


def exo_pair(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.1,
    label_smoothing: float = 1e-3,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """q * (log q - log(1 - e)) + (1 - q) * (log(1 - q) - log e), with q = sigmoid(h).

    h = beta * (chosen - rejected log-ratio), SUMMED over tokens. This is the REVERSE divergence
    KL(q || 1 - e) between the policy's preference and the smoothed label; cDPO with the
    same e is the forward one. The minimum is 0 at h = log((1 - e) / e), and the slope
    q (1 - q) (h - log((1 - e) / e)) vanishes far on BOTH sides: a pair that is very wrong has no
    gradient.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      label_smoothing: e, in (0, 0.5); 1e-3. At 0 the divergence is infinite.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio).
    Raises:
      ValueError: a number out of its range.
    Deviations: the smoothed targets are TRL's; the authors' code takes the log-targets 0 and -10,
      not normalized, which is about e = 4.5e-5.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)]
    >>> round(float(exo_pair(*x, beta=0.5)[0][0]), 4)
    1.2763
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    # no label_smoothing of 0: log e is then -inf, and the reverse divergence infinite
    require(
        (label_smoothing > 0) & (label_smoothing < 0.5),
        f"label_smoothing must be in (0, 0.5), got {label_smoothing}",
    )
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    chosen_rewards = beta * (chosen - ref_chosen)
    rejected_rewards = beta * (rejected - ref_rejected)
    h = chosen_rewards - rejected_rewards
    # log_sigmoid(h), since log(sigmoid(h)) is -inf in float32 at a large negative h
    right = jax.nn.sigmoid(h) * (jax.nn.log_sigmoid(h) - jnp.log1p(-label_smoothing))
    wrong = jax.nn.sigmoid(-h) * (jax.nn.log_sigmoid(-h) - jnp.log(label_smoothing))
    return right + wrong, {"chosen_rewards": chosen_rewards, "rejected_rewards": rejected_rewards}
