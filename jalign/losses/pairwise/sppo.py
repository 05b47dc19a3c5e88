"""SPPO: self-play preference optimization, a regression of log-ratios on win rates.

Wu et al. 2024, "Self-Play Preference Optimization for Language Model Alignment".
https://arxiv.org/abs/2405.00675. Not SPO (Swamy et al. 2024), which is a reinforcement learning
recipe.
"""

from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, require

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def sppo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    chosen_win_rate: Float[Array, "B"],
    rejected_win_rate: Float[Array, "B"],
    *,
    beta: float = 0.001,
) -> Out:
    """((d_w - eta * (p_w - 1/2))^2 + (d_l - eta * (p_l - 1/2))^2) / 2, with eta = 1 / beta.

    d is the log-ratio SUMMED over tokens. Multiplicative weights in closed form: each response is
    regressed on how often it beats the policy that the reference is a copy of. Freeze the
    reference anew at each of the (3) iterations.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the policy the pairs were drawn from.
      chosen_win_rate, rejected_win_rate: p_w, p_l in [0, 1], the mean probability that the response
        beats one of the K samples of its prompt, itself included at 1/2.
      beta: 1 / eta, > 0; 0.001, that is targets up to 500 nats and losses of about 1e5: use a small
        learning rate.
    Returns:
      The unreduced loss, and the implicit rewards `chosen_rewards`, `rejected_rewards`
      (beta * log-ratio; they aim at p - 1/2).
    Raises:
      ValueError: beta <= 0.
    Deviations: the paper regresses all K samples, the authors' code the best and the worst of them,
      as here. TRL has only the hard form, `sppo_hard`.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0, 0.75, 0.5)]
    >>> float(sppo(*x, beta=0.1)[0][0])
    1.625
    """
    chosen, rejected, ref_chosen, ref_rejected, p_chosen, p_rejected = f32(
        chosen_logps,
        rejected_logps,
        ref_chosen_logps,
        ref_rejected_logps,
        chosen_win_rate,
        rejected_win_rate,
    )
    # minus 1/2: a response that wins half of the time must not move
    total, rewards = _squares(
        chosen - ref_chosen, rejected - ref_rejected, p_chosen - 0.5, p_rejected - 0.5, beta
    )
    return 0.5 * total, rewards


def sppo_hard(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    ref_chosen_logps: Float[Array, "B"],
    ref_rejected_logps: Float[Array, "B"],
    *,
    beta: float = 0.001,
) -> Out:
    """(d_w - 1 / (2 beta))^2 + (d_l + 1 / (2 beta))^2: the chosen one always wins.

    TRL's `sppo_hard`: win rates of 1 and 0, and the SUM of the squares where `sppo` takes half.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      ref_chosen_logps, ref_rejected_logps: the same under the policy the pairs were drawn from.
      beta: as in `sppo`; TRL's default is 0.1.
    Returns:
      The unreduced loss, and `chosen_rewards`, `rejected_rewards` (beta * log-ratio; they aim at
      1/2 and -1/2).
    Raises:
      ValueError: beta <= 0.
    Deviations: twice what the authors' form gives with hard win rates, as in TRL.
    >>> import jax.numpy as jnp
    >>> float(sppo_hard(*[jnp.array([v]) for v in (-4.0, -9.0, -5.0, -8.0)], beta=0.25)[0][0])
    2.0
    """
    chosen, rejected, ref_chosen, ref_rejected = f32(
        chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    # no half, unlike `sppo`: TRL's loss_type sppo_hard sums the squares
    return _squares(chosen - ref_chosen, rejected - ref_rejected, 0.5, -0.5, beta)


def _squares(
    chosen: Array, rejected: Array, lead: Array | float, lag: Array | float, beta: float
) -> Out:
    require(beta > 0, f"beta must be > 0, got {beta}")
    total = (chosen - lead / beta) ** 2 + (rejected - lag / beta) ** 2
    return total, {"chosen_rewards": beta * chosen, "rejected_rewards": beta * rejected}
