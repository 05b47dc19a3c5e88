"""IPO: identity preference optimization, with token-averaged and with summed log-ratios.

Azar et al. 2023. https://arxiv.org/abs/2310.12036, Eq. 17.
"""

from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def ipo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    *,
    tau: float = 0.1,
) -> Out:
    """(h - 1 / (2 tau))^2, with h the difference of log-ratios, each averaged over its tokens.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_len, rejected_len: scored tokens, >= 1.
      tau: strength of the pull to the reference, > 0; the margin aimed at is 1 / (2 tau) nats per
        token. 0.1 to 1.
    Returns:
      The unreduced loss, and the log-ratios times tau as `chosen_rewards`, `rejected_rewards`.
    Raises:
      ValueError: tau <= 0.
    Deviations: the paper's Eq. 17 has no lengths (`ipo_sum`). TRL and HALOs average, as the authors
      are reported to have confirmed; tau is not comparable between the two.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 2.0, 4.0)]
    >>> float(ipo(*x, tau=0.5)[0][0])
    0.0625
    """
    chosen, rejected, ref_chosen, ref_rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps, chosen_len, rejected_len
    )
    # per token: 1 / (2 tau) is nats per token, so one tau is not the same loss as in ipo_sum
    return _squared((chosen - ref_chosen) / n_chosen, (rejected - ref_rejected) / n_rejected, tau)


def ipo_sum(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    tau: float = 0.1,
) -> Out:
    """(h - 1 / (2 tau))^2, with h the difference of SUMMED log-ratios: Eq. 17 as written.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      tau: strength of the pull to the reference, > 0; the margin aimed at is 1 / (2 tau) nats per
        response.
    Returns:
      The unreduced loss, and the log-ratios times tau as `chosen_rewards`, `rejected_rewards`.
    Raises:
      ValueError: tau <= 0.
    >>> import jax.numpy as jnp
    >>> float(ipo_sum(*[jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)], tau=0.5)[0][0])
    1.0
    """
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    return _squared(chosen - ref_chosen, rejected - ref_rejected, tau)


def _squared(chosen: Array, rejected: Array, tau: float) -> Out:
    require(tau > 0, f"tau must be > 0, got {tau}")
    loss = (chosen - rejected - 1 / (2 * tau)) ** 2
    return loss, {"chosen_rewards": tau * chosen, "rejected_rewards": tau * rejected}
