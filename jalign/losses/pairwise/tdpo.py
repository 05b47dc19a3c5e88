"""TDPO: DPO that also balances the divergence from the reference over the tokens of a pair.

Zeng et al. 2024, "Token-level Direct Preference Optimization". https://arxiv.org/abs/2404.11999.
S is the sum over the tokens of a response of KL(reference || policy) over the vocabulary; it needs
all logits of both models.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Summed = Float[Array, "B"]
Result = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def tdpo1(
    chosen_logps: Summed,
    rejected_logps: Summed,
    ref_chosen_logps: Summed,
    ref_rejected_logps: Summed,
    chosen_kl_from_ref: Summed,
    rejected_kl_from_ref: Summed,
    *,
    beta: float = 0.1,
) -> Result:
    """-log sigmoid(beta * (d_w - d_l - (S_l - S_w))), d the summed log-ratio of a response.

    That is DPO on the rewards beta * (d + S). Gradients flow into both S: that of the rejected
    response is lowered, that of the chosen one RAISED, which TDPO2 does not do.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_kl_from_ref, rejected_kl_from_ref: S, nats, >= 0.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
    Returns:
      The unreduced loss, and the rewards `chosen_rewards`, `rejected_rewards` (beta * (d + S)).
    Raises:
      ValueError: beta <= 0.
    Deviations: none. TRL has no TDPO.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 0.5, 1.5)]
    >>> round(float(tdpo1(*x, beta=0.5)[0][0]), 4)
    0.4741
    """
    chosen, rejected, s_chosen, s_rejected = _parts(
        chosen_logps,
        rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        chosen_kl_from_ref,
        rejected_kl_from_ref,
        beta,
    )
    # no stop_gradient, as in the paper's first form: it also raises S of the chosen response
    loss = -jax.nn.log_sigmoid(beta * (chosen - rejected - (s_rejected - s_chosen)))
    return loss, _rewards(chosen, rejected, s_chosen, s_rejected, beta)


def tdpo2(
    chosen_logps: Summed,
    rejected_logps: Summed,
    ref_chosen_logps: Summed,
    ref_rejected_logps: Summed,
    chosen_kl_from_ref: Summed,
    rejected_kl_from_ref: Summed,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> Result:
    """-log sigmoid(beta * (d_w - d_l - alpha * (S_l - stop_gradient(S_w)))).

    As `tdpo1`, but the divergence on the chosen response is a constant, so that nothing raises it,
    and the whole term has a weight.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the reference.
      chosen_kl_from_ref, rejected_kl_from_ref: S, nats, >= 0.
      beta: inverse temperature of the implicit reward, > 0; 0.1.
      alpha: weight of the divergences, >= 0; 0.5. 0 is DPO.
    Returns:
      The unreduced loss, and the rewards `chosen_rewards`, `rejected_rewards` (beta * (d + S),
      without alpha, as the authors log them).
    Raises:
      ValueError: a number out of its range.
    Deviations: none. TRL has no TDPO.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 0.5, 1.5)]
    >>> round(float(tdpo2(*x, beta=0.5)[0][0]), 4)
    0.3869
    """
    require(alpha >= 0, f"alpha must be >= 0, got {alpha}")
    chosen, rejected, s_chosen, s_rejected = _parts(
        chosen_logps,
        rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        chosen_kl_from_ref,
        rejected_kl_from_ref,
        beta,
    )
    # the divergence on the chosen side is a baseline: with a gradient it would be pushed up
    excess = s_rejected - jax.lax.stop_gradient(s_chosen)
    loss = -jax.nn.log_sigmoid(beta * (chosen - rejected - alpha * excess))
    return loss, _rewards(chosen, rejected, s_chosen, s_rejected, beta)


def _parts(
    chosen_logps: Array,
    rejected_logps: Array,
    ref_chosen_logps: Array,
    ref_rejected_logps: Array,
    chosen_kl_from_ref: Array,
    rejected_kl_from_ref: Array,
    beta: float,
) -> tuple[Array, Array, Array, Array]:
    """d_w, d_l, S_w, S_l."""
    require(beta > 0, f"beta must be > 0, got {beta}")
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    s_chosen, s_rejected = f32(chosen_kl_from_ref, rejected_kl_from_ref)
    return chosen - ref_chosen, rejected - ref_rejected, s_chosen, s_rejected


def _rewards(
    chosen: Array, rejected: Array, s_chosen: Array, s_rejected: Array, beta: float
) -> dict[str, Array]:
    return {
        # without alpha, so that the rewards of both forms can be compared, as the authors log them
        "chosen_rewards": beta * (chosen + s_chosen),
        "rejected_rewards": beta * (rejected + s_rejected),
    }
