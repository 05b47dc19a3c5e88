"""ORPO: odds ratio preference optimization (its preference term).

Hong, Lee, Thorne 2024. https://arxiv.org/abs/2403.07691, Eq. 6 and 7.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32, log1mexp, require


def orpo(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
    *,
    beta: float = 0.1,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-beta * log sigmoid(log odds(chosen) - log odds(rejected)): the odds-ratio term of ORPO.

    odds = p / (1 - p) with log p the MEAN log-probability per token. The whole objective is this
    plus the negative log-likelihood of the chosen responses (`losses.nll`); the catalogue's `orpo`
    adds it with weight `nll_coef` = 1, averaged over the response tokens of the batch.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      chosen_len, rejected_len: scored tokens, >= 1.
      beta: weight of the odds-ratio term (lambda in the paper, beta in TRL), >= 0; 0.1 to 0.25.
    Returns:
      The unreduced loss; `chosen_rewards`, `rejected_rewards` (beta * mean log-probability, as
      TRL); `log_odds_chosen` (the log odds ratio) and `log_odds_ratio` (its log sigmoid), TRL's
      names.
    Raises:
      ValueError: beta < 0.
    Deviations: the mean log-probability is clamped to <= -1e-7, where 1 - p is still a float32. TRL
      averages the NLL over prompt and response, the authors over the response by
      default.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, 4.0, 3.0)]
    >>> round(float(orpo(*x)[0][0]), 4)
    0.0086
    """
    require(beta >= 0, f"beta must be >= 0, got {beta}")
    chosen, rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, chosen_len, rejected_len
    )
    # log(1 - p) is -inf at p = 1, which a short memorized response reaches in float32
    chosen = jnp.minimum(chosen / n_chosen, -1e-7)
    rejected = jnp.minimum(rejected / n_rejected, -1e-7)
    # log p - log(1 - p) of means per token: the odds of a whole response would all be about 0
    log_odds = (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected))
    ratio = jax.nn.log_sigmoid(log_odds)
    return -beta * ratio, {
        "chosen_rewards": beta * chosen,
        "rejected_rewards": beta * rejected,
        "log_odds_chosen": log_odds,
        "log_odds_ratio": ratio,
    }
