"""Reward models from lists of K responses: all pairs, the pick of the best, the whole order.

All pairs: Ouyang et al. 2022 (InstructGPT). https://arxiv.org/abs/2203.02155, Eq. 1. Pick of the
best: Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences".
https://arxiv.org/abs/1909.08593, Eq. 1. Whole order: Plackett 1975; Luce 1959.

All K responses of a prompt are in one example. As pairs of their own each response would be seen
K - 1 times in an epoch, and the reward model overfits.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._lists import above, kept, leads, log_sum_exp, over_pairs, plackett_luce_nll

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B K"]]]


def k_wise(
    scores: Float[Array, "B K"], ratings: Float[Array, "B K"], valid: Bool[Array, "B K"]
) -> Out:
    """mean over pairs (i rated above j) of -log sigmoid(score_i - score_j).

    The mean is over the pairs of one prompt, K (K - 1) / 2 without ties: every prompt weighs the
    same however many responses it has. With two it is `bradley_terry`.

    Args:
      scores: scalar rewards read at the last token (EOS) of each response.
      ratings: higher is better; only their order matters (minus the rank will do).
      valid: where there is a response.
    Returns:
      The unreduced loss per prompt, 0 without any pair, and the scores as `rewards` [B, K], 0 where
      there is no response.
    Deviations: none known; TRL has pairs only.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(1.5, -0.5, 2.0), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(k_wise(*x)[0][0]), 4)
    0.3933
    """
    scores, ratings = kept(valid, scores, ratings)
    pairs = above(ratings, valid)
    loss = over_pairs(pairs, -jax.nn.log_sigmoid(leads(scores)))
    # by the pairs that exist: with ties K (K - 1) / 2 would shrink the prompt's weight
    return loss / jnp.maximum(pairs.sum((1, 2)), 1), {"rewards": scores}


def pick_best(
    scores: Float[Array, "B K"], ratings: Float[Array, "B K"], valid: Bool[Array, "B K"]
) -> Out:
    """-log softmax(scores) at the response with the highest rating: a person picked one of K.

    Where several share the highest rating it is -log of the sum of their probabilities, so equals
    are not set against each other. With two responses it is `bradley_terry`.

    Args:
      scores: scalar rewards read at the last token (EOS) of each response.
      ratings: higher is better; only who is best matters. A pick can be written as one 1 among
        zeros.
      valid: where there is a response.
    Returns:
      The unreduced loss per prompt, and the scores as `rewards` [B, K], 0 where there is no
      response. All responses best: 0.
    Deviations: none from the authors' code (K = 4 there) but for ties, which it does not have.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(1.5, -0.5, 2.0), a(1.0, 0.0, 0.0), a(True, True, True)
    >>> round(float(pick_best(*x)[0][0]), 4)
    1.0239
    """
    scores, ratings = kept(valid, scores, ratings)
    # -inf, not 0: all ratings of a list may be negative
    highest = jnp.max(jnp.where(valid, ratings, -jnp.inf), -1, keepdims=True)
    # the winners' total probability: a mean of their log-probs would set equals against each other
    loss = log_sum_exp(scores, valid) - log_sum_exp(scores, valid & (ratings == highest))
    return loss, {"rewards": scores}


def plackett_luce(
    scores: Float[Array, "B K"], ratings: Float[Array, "B K"], valid: Bool[Array, "B K"]
) -> Out:
    """-sum_k (score_k - log sum over k and all rated lower of exp(score_j)): the whole order.

    The best is drawn first with softmax probability, then the best of those left, and so on: K - 1
    picks where `pick_best` is one. With two responses it is `bradley_terry`.

    Args:
      scores: scalar rewards read at the last token (EOS) of each response.
      ratings: higher is better; only their order matters.
      valid: where there is a response.
    Returns:
      The unreduced loss per prompt, a SUM over the picks, and the scores as `rewards` [B, K], 0
      where there is no response.
    Deviations: the model knows no ties. Here equals are not compared: each is drawn among itself
      and those rated lower.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(1.5, -0.5, 2.0), a(0.9, 0.2, 0.5), a(True, True, True)
    >>> round(float(plackett_luce(*x)[0][0]), 4)
    1.1028
    """
    scores, ratings = kept(valid, scores, ratings)
    return plackett_luce_nll(scores, ratings, valid), {"rewards": scores}
