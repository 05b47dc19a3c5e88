"""Which responses to learn from, and what best-of-n reaches.

Scores are [B, K], K responses to each of B prompts; `valid` marks the slots that hold one. Other
slots are ignored, even if NaN.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jalign.advantages._arrays import differ, kept
from jalign.losses._math import require

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
    """The index of the highest score and of the lowest, and whether the two differ.

    The first of equals. Without any response both are 0 and do not differ.

    >>> best, worst, _ = best_and_worst(jnp.array([[1.0, 3.0, 0.5]]), jnp.ones((1, 3), bool))
    >>> best.tolist(), worst.tolist()
    ([1], [2])
    """
    best = jnp.argmax(jnp.where(valid, scores, -jnp.inf), -1)
    worst = jnp.argmin(jnp.where(valid, scores, jnp.inf), -1)
    return best, worst, differ(scores, valid)


def top_share(
    scores: Float[Array, "N"], valid: Bool[Array, "N"], *, alpha: float = 0.2
) -> Bool[Array, "N"]:
    """Whether a score is among the alpha * n highest of all n: RAFT's selection over a batch.

    Dong et al. 2023, https://arxiv.org/abs/2304.06767: it keeps the best answers, and so more
    of the prompts that are easy to answer well.

    Args:
      alpha: share that is kept, in (0, 1]; 0.2 in the authors' code.
    Returns:
      True at the nearest whole number to alpha * n of the valid slots, at least at one; of equals
      the first.
    Raises:
      ValueError: alpha outside of (0, 1].
    Deviations: the authors' code rounds alpha * n down, to 0 where n < 1 / alpha.
    >>> scores = jnp.array([1.0, 4.0, 2.0, 3.0, 9.0])
    >>> top_share(scores, scores < 5, alpha=0.5).tolist()
    [False, True, False, True, False]
    """
    require(0 < alpha <= 1, f"alpha must be in (0, 1], got {alpha}")
    # argsort is stable, so of equal scores the first ones are kept
    best_first = jnp.argsort(jnp.where(valid, scores, -jnp.inf), descending=True)
    rank = jnp.argsort(best_first)
    # at least one: rounding down keeps nothing of a small rollout
    return valid & (rank < jnp.maximum(jnp.round(alpha * jnp.sum(valid)), 1))


def statistical_rejection(
    scores: Scores,
    valid: Valid,
    uniforms: Float[Array, "B S K"],
    *,
    beta: float = 0.5,
    accept: int = 8,
) -> tuple[Int[Array, "B A"], Bool[Array, "B"]]:
    """Each sweep accepts remaining responses with probability exp((score - highest) / beta): RSO.

    Liu et al. 2023, "Statistical Rejection Sampling Improves Preference Optimization",
    https://arxiv.org/abs/2309.06657, Algorithm 1. What it accepts are samples of
    p(response) * exp(score / beta) / Z, where p wrote the responses. A sweep goes through the
    responses that are left in their order; the highest score is that of all that were left when
    it began. It therefore accepts one at least, and `accept` sweeps are enough.

    Args:
      uniforms: random numbers in [0, 1); [b, s, k] decides about response k in sweep s. S is at
        least `accept`.
      beta: temperature of the scores, > 0, in their units; 0.5. Towards 0 the highest scores are
        accepted, towards infinity the first responses whatever their scores.
      accept: responses A to accept, from 1 to K; the paper has 8 of 64.
    Returns:
      The indices of the accepted responses in order of acceptance, and whether `accept` responses
      were accepted. If not, the first indices are all valid ones and the others mean nothing.
    Raises:
      ValueError: a number out of its range.
    Deviations: equal texts are responses of their own, where the paper's code keys by text.
    >>> scores, uniforms = jnp.array([[1.0, 3.0, 2.0]]), jnp.array([[[0.5, 0.9, 0.3]] * 2])
    >>> indices, enough = statistical_rejection(scores, scores > 0, uniforms, beta=1.0, accept=2)
    >>> indices.tolist(), enough.tolist()  # exp(-2) < 0.5 at first; 0.3 < exp(-1)
    ([[1, 2]], [True])
    """
    k, sweeps = scores.shape[-1], uniforms.shape[1]
    require(beta > 0, f"beta must be > 0, got {beta}")
    require(1 <= accept <= k, f"accept must be from 1 to the {k} responses, got {accept}")
    require(accept <= sweeps, f"accept is {accept}, and there are numbers for {sweeps} sweeps")
    scores = kept(scores, valid)

    def sweep(carry: tuple[Array, Array], u: Array) -> tuple[tuple[Array, Array], None]:
        left, order = carry
        # relative to the best response that is left, so a sweep accepts at least that one
        highest = jnp.max(jnp.where(left, scores, -jnp.inf), -1, keepdims=True)
        here = left & (u < jnp.exp((scores - highest) / beta))
        # accepted so far + the place in this sweep: the order of acceptance, without a loop over k
        slot = jnp.sum(valid & ~left, -1, keepdims=True) + jnp.cumsum(here, -1) - 1
        here &= slot < accept
        return (left & ~here, jnp.where(here, slot, order)), None

    # a fixed number of sweeps: a loop until enough are accepted would not compile to one shape
    never = jnp.full(scores.shape, k)
    (_, order), _ = jax.lax.scan(sweep, (valid, never), jnp.moveaxis(uniforms, 1, 0)[:accept])
    return jnp.argsort(order, -1)[:, :accept], jnp.sum(valid, -1) >= accept


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
    # invalid ones sort last at -inf, and 0 * inf would be NaN
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
