"""LiPO-lambda: listwise preference optimization with the LambdaLoss of learning to rank.

Liu et al. 2024, "LiPO: Listwise Preference Optimization through Learning-to-Rank".
https://arxiv.org/abs/2402.01878, Eq. 8. The other losses of that paper: `ranking`.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import above, kept, leads, over_pairs
from jalign.losses._math import require


def lipo_lambda(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.05,
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B K"]]]:
    """sum over pairs (i rated above j) of w_ij * -log sigmoid(s_i - s_j), s = beta * log-ratio.

    w_ij = |2^rating_i - 2^rating_j| * |1 / log(1 + rank_i) - 1 / log(1 + rank_j)|: how much DCG
    would change if the two swapped places. rank is the place of a response when the list is sorted
    by s (1 is the highest), so a mistake at the top of the POLICY's ranking weighs most. The
    weight (Lambda, or Delta) has no gradient. All-pairs DPO is the case of equal weights.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: higher is better, best in [0, 1] (the paper: the mean probability to win against
        another response of the list). The gain is exponential: ratings above 127 overflow.
      valid: where there is a response.
      beta: scale of s, > 0; 0.05.
    Returns:
      The unreduced loss per prompt, a sum over its pairs (0 without any), and s as `rewards`
      [B, K], 0 where there is no response.
    Raises:
      ValueError: beta <= 0.
    Deviations: none from the paper, which leaves two things open. Equal s are ranked in the order
      of the list: at step 0 all are equal, and with equal ranks nothing would ever be learned. The
      logarithm is the natural one (base 2, as in DCG, would multiply the loss by log 2). Other
      implementations rank by rating, or leave out the gain; TRL has none.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(lipo_lambda(*x, beta=0.5)[0][0]), 4)
    0.2894
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    logps, ref_logps, ratings = kept(valid, logps, ref_logps, ratings)
    scores = beta * (logps - ref_logps)
    # inf: empty slots sort last and take no rank from a response
    order = jnp.argsort(jnp.where(valid, -jax.lax.stop_gradient(scores), jnp.inf), -1)
    # the argsort of an argsort is the rank; it is piecewise constant, so it has no gradient
    rank = jnp.argsort(order, -1) + 1.0
    weight = jnp.abs(leads(jnp.exp2(ratings)) * leads(1 / jnp.log1p(rank)))
    loss = over_pairs(above(ratings, valid), -weight * jax.nn.log_sigmoid(leads(scores)))
    return loss, {"rewards": scores}
