"""RRHF: rank responses to align language models with human feedback without tears.

Yuan et al. 2023. https://arxiv.org/abs/2304.05302, Eq. 2 to 4.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import above, kept, leads, over_pairs
from jalign.losses._math import f32, require
from jalign.losses.supervised import nll_best


def rrhf(
    logps: Float[Array, "B K"],
    lens: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    rank_coef: float = 1.0,
    length_exponent: float = 1.0,
) -> tuple[Float[Array, "B"], dict[str, Array]]:
    """rank_coef * sum over pairs (i rated above j) of max(0, p_j - p_i) + NLL of the best.

    p = log p(response) / len^length_exponent: with exponent 1 the mean per token. There is no
    margin and no reference: a pair in the right order costs nothing, and only the supervised term,
    the mean NLL per token of the response with the highest rating, holds the policy. The two are
    one method, so both are here.

    Args:
      logps: log p(response | prompt), nats, summed over response tokens.
      lens: scored tokens, >= 1.
      ratings: higher is better; only their order matters. The first of several best is learned.
      valid: where there is a response.
      rank_coef: weight of the ranking term, >= 0; 1 (the authors' scripts; 100 in their code's
        defaults).
      length_exponent: >= 0; 1. With 0 the sums are compared.
    Returns:
      The unreduced loss per prompt; p as `rewards` [B, K], 0 where there is no response;
      `rank_loss` (before its weight) and `nll_loss`, [B].
    Raises:
      ValueError: a number out of its range.
    Deviations: the supervised term is a mean over the response's own tokens; the paper sums, the
      authors' code divides by the padded length. TRL has none.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-6.0, -2.0, -9.0), a(3.0, 2.0, 6.0), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(rrhf(*x)[0][0]), 4)
    4.0
    """
    require(rank_coef >= 0, f"rank_coef must be >= 0, got {rank_coef}")
    require(length_exponent >= 0, f"length_exponent must be >= 0, got {length_exponent}")
    logps, ratings = kept(valid, logps, ratings)
    # 1 where there is no response: 0 / 0 would be NaN before any mask
    lens = jnp.where(valid, f32(lens)[0], 1.0)
    scores = logps / lens**length_exponent
    # no margin, as in the paper: a pair in the right order costs nothing
    rank = over_pairs(above(ratings, valid), jax.nn.relu(-leads(scores)))
    nll, _ = nll_best(logps, lens, ratings, valid)
    metrics = {"rewards": scores, "rank_loss": rank, "nll_loss": nll}
    return rank_coef * rank + nll, metrics
