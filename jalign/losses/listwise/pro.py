"""PRO: preference ranking optimization for human alignment.

Song et al. 2023. https://arxiv.org/abs/2306.17492, Eq. 7 to 9.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import above, best, kept, leads, log_sum_exp
from jalign.losses._math import f32, require


def pro(
    logps: Float[Array, "B K"],
    lens: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    sft_coef: float = 0.05,
) -> tuple[Float[Array, "B"], dict[str, Array]]:
    """sum_k -log(e^(p_k T_k) / (e^(p_k T_k) + sum_i e^(p_i T_ki))) + c (n - 1)^2 * NLL of the best.

    p is the mean log-probability per token; i runs over the responses rated lower than k,
    T_ki = rating_k - rating_i and T_k = max_i T_ki; c is `sft_coef`, n the number of responses.
    Each response in turn, from the best down, is set against all below it, more sharply the more
    the ratings differ. The NLL is SUMMED over tokens, unlike p. No reference.

    Args:
      logps: log p(response | prompt), nats, summed over response tokens.
      lens: scored tokens, >= 1.
      ratings: rewards, higher is better. Their DIFFERENCES are the temperatures, so their scale
        matters; ranks 0, 1, 2, ... do where there are no rewards.
      valid: where there is a response.
      sft_coef: weight of the supervised term, >= 0; 0.05.
    Returns:
      The unreduced loss per prompt; p as `rewards` [B, K], 0 where there is no response;
      `rank_loss` [B], the loss without its supervised term.
    Raises:
      ValueError: sft_coef < 0.
    Deviations: the authors' code multiplies by the differences of rewards, and so does this; the
      paper defines a temperature 1 / difference and divides by it. Equal ratings are not set
      against each other (in the authors' code the later one is, at temperature 0). The supervised
      response is the best one, the first of several (theirs is marked in the data). TRL has none.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-6.0, -2.0, -9.0), a(3.0, 2.0, 6.0), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> loss, metrics = pro(*x)
    >>> round(float(metrics["rank_loss"][0]), 4), round(float(loss[0]), 4)
    (2.4271, 3.6271)
    """
    require(sft_coef >= 0, f"sft_coef must be >= 0, got {sft_coef}")
    logps, ratings = kept(valid, logps, ratings)
    # 1 where there is no response: 0 / 0 would be NaN before any mask
    lens = jnp.where(valid, f32(lens)[0], 1.0)
    scores = logps / lens
    lower, itself = above(ratings, valid), jnp.eye(valid.shape[-1], dtype=bool)
    against = jnp.where(lower, leads(ratings), 0.0)
    own = scores * against.max(-1)  # 0 for the last: nothing is below it, and it adds nothing
    # row k: response k at its largest rating gap, each lower one at the gap between the two
    logits = jnp.where(itself, own[:, :, None], scores[:, None, :] * against)
    rank = jnp.sum(log_sum_exp(logits, lower | itself) - own, -1)
    nll = -jnp.sum(jnp.where(best(ratings, valid), logps, 0.0), -1)
    others = jnp.maximum(valid.sum(-1) - 1.0, 0.0)
    return rank + sft_coef * others**2 * nll, {"rewards": scores, "rank_loss": rank}
