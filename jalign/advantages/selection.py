"""Which responses to learn from, and what best-of-n reaches.

Scores are [B, K], K responses to each of B prompts; `valid` says which places hold one. What stands
at the others, NaN too, does not matter.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jalign.advantages._arrays import differ, require

Scores = Float[Array, "B K"]
Valid = Bool[Array, "B K"]


def informative_groups(scores: Scores, valid: Valid) -> Bool[Array, "B"]:
    """Whether the scores of a group are not all equal: DAPO's dynamic sampling.

    Yu et al. 2025, https://arxiv.org/abs/2503.14476, Eq. 11. Where they are, as where every answer
    is right or every one wrong, the advantages are 0 and nothing is learned.

    >>> scores = jnp.array([[1.0, 0.0], [1.0, 1.0]])
    >>> informative_groups(scores, jnp.ones((2, 2), bool)).tolist()
    [True, False]
    """
    return differ(scores, valid)


def best_and_worst(
    scores: Scores, valid: Valid
) -> tuple[Int[Array, "B"], Int[Array, "B"], Bool[Array, "B"]]:
    """The place of the highest score and of the lowest, and whether the two differ.

    The first of equals. Without any response both are 0 and do not differ.

    >>> best, worst, _ = best_and_worst(jnp.array([[1.0, 3.0, 0.5]]), jnp.ones((1, 3), bool))
    >>> best.tolist(), worst.tolist()
    ([1], [2])
    """
    best = jnp.argmax(jnp.where(valid, scores, -jnp.inf), -1)
    worst = jnp.argmin(jnp.where(valid, scores, jnp.inf), -1)
    return best, worst, differ(scores, valid)


def expected_best_of_n(scores: Scores, valid: Valid, *, n: int) -> Float[Array, "B"]:
    """The mean, over all choices of n of a prompt's m responses, of the highest score among them.

    That is sum over i of C(i - 1, n - 1) / C(m, n) * (i-th lowest score): unbiased, and of less
    variance than one draw of n. With n = 1 the mean, with n = m the maximum.

    Args:
      n: >= 1 and <= K.
    Returns:
      NaN for a prompt with fewer than n responses.
    Raises:
      ValueError: n outside of 1 to K.
    >>> expected_best_of_n(jnp.array([[5.0, 2.0, 8.0]]), jnp.ones((1, 3), bool), n=2).tolist()
    [7.0]
    """
    k = scores.shape[-1]
    require(1 <= n <= k, f"n must be from 1 to the {k} responses, got {n}")
    m = jnp.sum(valid, -1, keepdims=True, dtype=jnp.float32)
    rank = jnp.arange(k, dtype=jnp.float32)
    scores = jnp.where(valid, jnp.asarray(scores, jnp.float32), -jnp.inf)
    scores = jnp.where(rank < m, jnp.sort(scores, -1, descending=True), 0.0)
    left = jnp.maximum(m - rank, 1.0)  # responses not above this one
    # None of the n is among the `rank` best; then this one is, among those that are left.
    skipped = jnp.cumprod(jnp.maximum(left - n, 0.0) / left, -1)
    skipped = jnp.concatenate([jnp.ones_like(m), skipped[:, :-1]], -1)
    mean = jnp.sum(scores * skipped * n / left, -1)
    return jnp.where(m[:, 0] >= n, mean, jnp.nan)


def best_of_n_kl(n: Float[Array, "*P"] | Int[Array, "*P"] | int) -> Float[Array, "*P"]:
    """log n - (n - 1) / n: a bound on KL(best of n || the model), nats.

    Exact where no two responses are equal, as in a continuous space, and too high where the model
    repeats itself (Beirami et al. 2024, https://arxiv.org/abs/2401.01879).

    >>> round(float(best_of_n_kl(4)), 4)
    0.6363
    """
    n = jnp.asarray(n, jnp.float32)
    return jnp.log(n) - (n - 1) / n
