"""Reward models by regression: on a rating, on a difference, on several attributes.

The first two: Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, whose code has them beside the
pick of the best. Attributes: Wang et al. 2023 (HelpSteer), https://arxiv.org/abs/2311.09528, and
the first stage of ArmoRM (Wang et al. 2024, https://arxiv.org/abs/2406.12845).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def score_regression(scores: Float[Array, "B"], rating: Float[Array, "B"]) -> Out:
    """(score - rating)^2: the score is the rating itself, in its units.

    Args:
      scores: scalar rewards read at the last response token (EOS).
      rating: the number to predict. Scaled to a standard deviation near 1, learning rates of other
        reward models apply.
    Returns:
      The unreduced loss, and the scores as `rewards`.
    Deviations: none; TRL has none.
    >>> import jax.numpy as jnp
    >>> score_regression(jnp.array([1.5]), jnp.array([-0.5]))[0].tolist()
    [4.0]
    """
    scores, rating = f32(scores, rating)
    return (scores - rating) ** 2, {"rewards": scores}


def score_difference(
    chosen_scores: Float[Array, "B"],
    rejected_scores: Float[Array, "B"],
    margin: Float[Array, "B"],
) -> Out:
    """(chosen - rejected - margin)^2: the difference of the scores IS the margin.

    Not a bound, as in `bradley_terry_margin`: winning by more costs as much as winning by less.
    Only differences are identified.

    Args:
      chosen_scores, rejected_scores: scalar rewards read at the last response token (EOS).
      margin: by how much the chosen response was rated higher; negative where it was not. Best
        scaled to a standard deviation near 1/2.
    Returns:
      The unreduced loss, and the scores as `chosen_rewards`, `rejected_rewards`.
    Deviations: none; the scaling is left to the data.
    >>> import jax.numpy as jnp
    >>> x = jnp.array([1.5]), jnp.array([0.5]), jnp.array([3.0])
    >>> score_difference(*x)[0].tolist()
    [4.0]
    """
    chosen, rejected, margin = f32(chosen_scores, rejected_scores, margin)
    loss = (chosen - rejected - margin) ** 2
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}


def multi_attribute(
    attribute_scores: Float[Array, "B A"], attribute_ratings: Float[Array, "B A"]
) -> Out:
    """mean over the rated attributes of (score - rating)^2, one value per response.

    One output of the head per attribute (helpfulness, correctness, verbosity ...). At inference the
    reward is a weighted sum of them, whose weights are chosen afterwards.

    Args:
      attribute_scores: outputs of the head at the last response token (EOS).
      attribute_ratings: the numbers to predict; NaN where an attribute was not rated.
    Returns:
      The unreduced loss, 0 where nothing was rated, and as `rewards` the plain mean of all
      attributes, rated or not.
    Deviations: the mean is taken for each response, so one with few ratings weighs as much as one
      with all. (The sources have complete ratings or do not say.)
    >>> import jax.numpy as jnp
    >>> scores, ratings = jnp.array([[1.5, 3.0, 2.0]]), jnp.array([[1.0, jnp.nan, 4.0]])
    >>> multi_attribute(scores, ratings)[0].tolist()
    [2.125]
    """
    scores, ratings = f32(attribute_scores, attribute_ratings)
    rated = ~jnp.isnan(ratings)
    # both sides are replaced: (score - NaN)^2 masked afterwards has a NaN gradient
    error = jnp.where(rated, scores, 0.0) - jnp.where(rated, ratings, 0.0)
    loss = jnp.sum(error**2, -1) / jnp.maximum(rated.sum(-1), 1)
    return loss, {"rewards": scores.mean(-1)}
