"""Losses that maximize NDCG, the quality of the policy's ranking of a list, with a soft sort.

`neural_ndcg`: Zhao et al. 2024, "Ordinal Preference Optimization: Aligning Human Preferences via
NDCG". https://arxiv.org/abs/2410.04346, with NeuralSort (Grover et al. 2019,
https://arxiv.org/abs/1903.08850). `diff_ndcg`: Zhou et al. 2024, "Optimizing Preference Alignment
with Differentiable NDCG Ranking". https://arxiv.org/abs/2410.18127, with an odd-even sorting
network (Petersen et al. 2022, https://arxiv.org/abs/2203.09630).
"""

import math

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import FAR, kept, leads
from jalign.losses._math import require

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B K"]]]


def neural_ndcg(
    logps: Float[Array, "B K"],
    ref_logps: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 0.1,
    tau: float = 1.0,
) -> Out:
    """-NDCG of the list sorted softly by s = beta * log-ratio, SUMMED over tokens.

    NDCG = sum_i (P g)_i / log2(1 + i) over the same sum for the best order, with the gains g =
    2^rating - 1 and P a soft permutation matrix: row i is softmax_j(((n + 1 - 2 i) s_j - sum_k |s_j
    - s_k|) / tau), n the responses of the list, then scaled 50 times so that columns and rows add
    up to 1 (Sinkhorn).

    Args:
      logps, ref_logps: log p(response | prompt) of policy and reference, nats, summed.
      ratings: higher is better, >= 0, best in [0, 1]: the gain is exponential.
      valid: where there is a response.
      beta: scale of s, > 0; 0.1.
      tau: temperature of the sort, > 0; 1. Near 0 the sort is hard and has no gradient.
    Returns:
      The unreduced loss per prompt in [-1, 0] (0 where no response has a gain), and s as `rewards`
      [B, K], 0 where there is no response.
    Raises:
      ValueError: a number out of its range.
    Deviations: the authors' code stops scaling at a tolerance of 1e-6, keeps P in 16 bits, and
      averages over lists that have a gain; here a list without one counts with a loss of 0.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(-5.0, -8.0, -7.5), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(neural_ndcg(*x, beta=0.5)[0][0]), 4)
    -0.8988
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(tau > 0, f"tau must be > 0, got {tau}")
    logps, ref_logps, gains = kept(valid, logps, ref_logps, _gains(ratings, valid))
    scores = beta * (logps - ref_logps)
    # a maximum to be reached: NDCG is 1 for the best order
    return -_ndcg(_scaled(_neural_sort(scores, valid, tau), valid), gains), {"rewards": scores}


def diff_ndcg(
    logps: Float[Array, "B K"],
    lens: Float[Array, "B K"],
    ratings: Float[Array, "B K"],
    valid: Bool[Array, "B K"],
    *,
    beta: float = 1.0,
    steepness: float = 10.0,
) -> Out:
    """1 - NDCG of the list sorted by a soft sorting network, by s = beta * mean log-probability.

    NDCG is that of `neural_ndcg`. P comes from n layers of an odd-even network, n the responses of
    the list: neighbors i and i + 1 swap with probability 1 / 2 + arctan(steepness * (s_{i + 1} -
    s_i)) / pi. No reference.

    Args:
      logps: log p(response | prompt), nats, summed over response tokens.
      lens: scored tokens, >= 1.
      ratings: higher is better, >= 0, best in [0, 1]: the gain is exponential.
      valid: where there is a response.
      beta: scale of s, > 0; 1.
      steepness: of the swaps, > 0; 10.
    Returns:
      The unreduced loss per prompt in [0, 1] (1 where no response has a gain), and s as `rewards`
      [B, K], 0 where there is no response.
    Raises:
      ValueError: a number out of its range.
    Deviations: DRPO also subtracts from s a margin by rank, a running mean of the scores of that
      rank (its Adaptive Rank Policy Score); here s has no margin, as in the authors' ablation
      without it. Missing responses stay where they are, at the end of the list.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(-4.0, -9.0, -6.0), a(4.0, 3.0, 4.0), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(diff_ndcg(*x)[0][0]), 4)
    0.014
    """
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(steepness > 0, f"steepness must be > 0, got {steepness}")
    logps, lens, gains = kept(valid, logps, lens, _gains(ratings, valid))
    # lens of a missing response is 0 here
    scores = beta * logps / jnp.maximum(lens, 1.0)
    order = jnp.argsort(~valid, -1)  # stable: the responses that exist come first
    there, s, g = (jnp.take_along_axis(x, order, -1) for x in (valid, scores, gains))
    return 1 - _ndcg(_network(s, there, steepness), g), {"rewards": scores}


def _gains(ratings: Float[Array, "B K"], valid: Bool[Array, "B K"]) -> Float[Array, "B K"]:
    """2^rating - 1, up to a factor per list that NDCG does not see; a list with ratings below 0,
    which ranks become, is shifted to begin at 0.
    """
    (ratings,) = kept(valid, ratings)
    ratings = ratings - jnp.minimum(ratings.min(-1, keepdims=True), 0.0)
    (ratings,) = kept(valid, ratings)  # a missing one, which was 0, may have become the highest
    # 2^128 is infinite in float32, and so may be a sum of smaller ones
    excess = jnp.maximum(ratings.max(-1, keepdims=True) - 64.0, 0.0)
    return jnp.exp2(ratings - excess) - jnp.exp2(-excess)


def _ndcg(permutation: Float[Array, "B K K"], gains: Float[Array, "B K"]) -> Float[Array, "B"]:
    """NDCG of gains moved by a soft permutation; 0 where all gains are 0."""
    discounts = 1 / jnp.log2(jnp.arange(gains.shape[-1]) + 2.0)
    best = jnp.sum(-jnp.sort(-gains, -1) * discounts, -1)
    dcg = jnp.sum(jnp.einsum("bij,bj->bi", permutation, gains) * discounts, -1)
    # where evaluates both branches: 0 / 0 would make the gradient NaN
    return jnp.where(best > 0, dcg / jnp.where(best > 0, best, 1.0), 0.0)


def _neural_sort(scores: Array, valid: Array, tau: float) -> Float[Array, "B K K"]:
    """Row i: a distribution over the responses for place i of the descending order."""
    both = valid[:, :, None] & valid[:, None, :]
    apart = jnp.sum(jnp.where(both, jnp.abs(leads(scores)), 0.0), -1)
    n = valid.sum(-1)[:, None]
    scaling = jnp.where(jnp.arange(valid.shape[-1]) < n, n - 1 - 2 * jnp.arange(valid.shape[-1]), 0)
    # the row of rank i is largest at the response with the i-th highest score
    logits = (scaling[:, :, None] * scores[:, None, :] - apart[:, None, :]) / tau
    return jax.nn.softmax(jnp.where(valid[:, None, :], logits, FAR), -1)


def _scaled(p: Float[Array, "B K K"], valid: Array) -> Float[Array, "B K K"]:
    """Sinkhorn scaling of the places and responses that exist; 0 elsewhere."""
    # rows are ranks, the first n of which exist; columns are responses, which may have gaps
    ranks = jnp.arange(valid.shape[-1]) < valid.sum(-1)[:, None]
    p = jnp.where(ranks[:, :, None] & valid[:, None, :], p, 0.0)

    def scale(p: Array, _: None) -> tuple[Array, None]:
        for axis in (1, 2):
            total = p.sum(axis, keepdims=True)
            # empty rows stay: divided by something small, 100 times, their gradients overflow
            p = p / jnp.where(total > 1e-10, total, 1.0)
        return p, None

    return jax.lax.scan(scale, p, None, length=50)[0]


def _network(scores: Array, there: Array, steepness: float) -> Float[Array, "B K K"]:
    """[b, i, j]: how much of response j arrives at place i after n layers of swaps."""
    b, k = scores.shape
    # as many layers as responses: missing ones must not make the sort harder
    index, count = jnp.arange(k), there.sum(-1, keepdims=True)

    def layer(n: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        s, p = carry
        # the neighbor above or below, by the parity of place and layer; at the ends none
        to = index + jnp.where((index + n) % 2 == 0, 1, -1)
        pair = (to >= 0) & (to < k) & (n < count)
        to = jnp.clip(to, 0, k - 1)
        lead = jnp.where(index < to, 1.0, -1.0) * (s[:, to] - s)
        move = 0.5 + jnp.arctan(steepness * lead) / math.pi
        move = jnp.where(pair & there & there[:, to], move, 0.0)
        # both neighbors move by the same share, so scores and rows keep their sums
        s = (1 - move) * s + move * s[:, to]
        return s, (1 - move)[:, :, None] * p + move[:, :, None] * p[:, to]

    # every response starts at its own index
    start = scores, jnp.broadcast_to(jnp.eye(k), (b, k, k))
    return jax.lax.fori_loop(0, k, layer, start)[1]
