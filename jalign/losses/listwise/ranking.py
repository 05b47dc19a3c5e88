"""The unweighted losses that LiPO compares with its own: pairwise, Plackett-Luce, softmax.

Liu et al. 2024, "LiPO: Listwise Preference Optimization through Learning-to-Rank".
https://arxiv.org/abs/2402.01878, Eq. 5 (logistic), 6 (hinge), 7 (list MLE), 11 (softmax).
All score a response by s = beta * its log-ratio to the reference, SUMMED over tokens. The paper's
text has been checked; it names no code beyond the ranking losses of the library rax.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import above, kept, leads, log_softmax, over_pairs, plackett_luce_nll
from jalign.losses._math import require

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B K"]]]


def lipo_logistic(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.05,
) -> Out:
    """sum over pairs (i rated above j) of -log sigmoid(s_i - s_j): DPO on all pairs of a list.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: higher is better; only their order matters.
      valid: where there is a response.
      beta: scale of s, > 0; 0.05.
    Returns:
      The unreduced loss per prompt, a sum over its pairs (0 without any), and s as `rewards`
      [B, K], 0 where there is no response.
    Raises:
      ValueError: beta <= 0.
    Deviations: none known. A longer list has more pairs and so weighs more.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(lipo_logistic(*x, beta=0.5)[0][0]), 4)
    1.3911
    """
    scores, ratings = _scores(logps, ref_logps, ratings, valid, beta)
    # a sum, as in the paper: a longer list weighs more; `k_wise` is the mean over pairs
    loss = over_pairs(above(ratings, valid), -jax.nn.log_sigmoid(leads(scores)))
    return loss, {"rewards": scores}


def lipo_hinge(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.05,
) -> Out:
    """sum over pairs (i rated above j) of max(0, 1 - (s_i - s_j)).

    For two responses the normalized hinge of RSO ("SLiC-norm"): against a reference and without a
    supervised term, unlike SLiC-HF (`jalign.losses.pairwise.slic_hf`).

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: higher is better; only their order matters.
      valid: where there is a response.
      beta: a pair has no gradient beyond a lead of 1 / beta nats, > 0; 0.05.
    Returns:
      The unreduced loss per prompt, a sum over its pairs (0 without any), and s as `rewards`
      [B, K], 0 where there is no response.
    Raises:
      ValueError: beta <= 0.
    Deviations: none known.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(lipo_hinge(*x, beta=0.5)[0][0]), 4)
    1.25
    """
    scores, ratings = _scores(logps, ref_logps, ratings, valid, beta)
    loss = over_pairs(above(ratings, valid), jax.nn.relu(1.0 - leads(scores)))
    return loss, {"rewards": scores}


def list_mle(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.05,
) -> Out:
    """-sum_k log(exp(s_k) / sum over k and all rated lower of exp(s_j)): Plackett-Luce on s.

    The likelihood of the whole order: the best drawn first, then the best of the rest, and so on.
    DPO's own form for more than two responses; for two it is DPO.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: higher is better; only their order matters.
      valid: where there is a response.
      beta: scale of s, > 0; 0.05.
    Returns:
      The unreduced loss per prompt, and s as `rewards` [B, K], 0 where there is no response.
    Raises:
      ValueError: beta <= 0.
    Deviations: the paper assumes a full order. Here equals are not compared with each other: each
      is drawn among itself and those rated lower (rax breaks ties at random).
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(list_mle(*x, beta=0.5)[0][0]), 4)
    1.2272
    """
    scores, ratings = _scores(logps, ref_logps, ratings, valid, beta)
    return plackett_luce_nll(scores, ratings, valid), {"rewards": scores}


def lipo_softmax(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.05,
) -> Out:
    """-sum_k rating_k / (sum_j rating_j) * log softmax(s)_k: cross-entropy with ratings as labels.

    ListNet's loss, but with labels that are shares of the ratings and no softmax of them; with the
    softmax it is InfoNCA (`jalign.losses.listwise.nca`). Not the best of its paper: where all
    responses are rated much alike the labels are nearly uniform.

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: higher is better, >= 0 and best in [0, 1]; only their proportions matter.
      valid: where there is a response.
      beta: scale of s, > 0; 0.05.
    Returns:
      The unreduced loss per prompt, and s as `rewards` [B, K], 0 where there is no response.
    Raises:
      ValueError: beta <= 0.
    Deviations: a rating below 0, which the paper excludes, counts as 0; a list without any rating
      above 0 has loss 0.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(lipo_softmax(*x, beta=0.5)[0][0]), 4)
    1.0222
    """
    scores, ratings = _scores(logps, ref_logps, ratings, valid, beta)
    share = jnp.maximum(ratings, 0.0)
    total = jnp.sum(share, -1)
    entropy = -jnp.sum(share * log_softmax(scores, valid), -1)
    # not maximum(total, 1): a total below 1 is legitimate where ratings are probabilities
    return entropy / jnp.where(total > 0, total, 1.0), {"rewards": scores}


def _scores(logps: Array, ref_logps: Array, ratings: Array, valid: Array, beta: float) -> tuple:
    """s and the ratings, both 0 where there is no response."""
    require(beta > 0, f"beta must be > 0, got {beta}")
    logps, ref_logps, ratings = kept(valid, logps, ref_logps, ratings)
    return beta * (logps - ref_logps), ratings
