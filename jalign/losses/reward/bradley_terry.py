"""Bradley-Terry reward models.

Ouyang et al. 2022 (InstructGPT). https://arxiv.org/abs/2203.02155, Eq. 1 with two responses per
prompt; margin: Touvron et al. 2023 (Llama 2). https://arxiv.org/abs/2307.09288, Eq. 2; soft labels:
Lee et al. 2023 (RLAIF). https://arxiv.org/abs/2309.00267; centering: Eisenstein et al. 2023.
https://arxiv.org/abs/2312.09244, Eq. 2.
"""

import jax
from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32


def bradley_terry(
    chosen_scores: Float[Array, "B"], rejected_scores: Float[Array, "B"]
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(chosen - rejected), one value per pair.

    Args:
      chosen_scores, rejected_scores: scalar rewards read at the last response token (EOS).
        Only their difference is identified: see `reward_centering`.
    Returns:
      The unreduced loss, and the scores as `chosen_rewards`, `rejected_rewards`.
    >>> import jax.numpy as jnp
    >>> round(float(bradley_terry(jnp.array([1.5]), jnp.array([0.5]))[0][0]), 4)
    0.3133
    """
    chosen, rejected = f32(chosen_scores, rejected_scores)
    # of the difference: softmax as written, exp(chosen) / (..), overflows from a score of 89 on
    loss = -jax.nn.log_sigmoid(chosen - rejected)
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}


def bradley_terry_margin(
    chosen_scores: Float[Array, "B"],
    rejected_scores: Float[Array, "B"],
    margin: Float[Array, "B"],
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(chosen - rejected - margin): the clearer the preference, the wider the gap.

    Args:
      chosen_scores, rejected_scores: scalar rewards read at the last response token (EOS).
      margin: by how much the chosen reward must win, in reward units. Llama 2 maps its four levels
        of preference (significantly better ... negligibly better or unsure) to 1, 2/3, 1/3, 0, or
        in its wide variant to 3, 2, 1, 0.
    Returns:
      The unreduced loss, and the scores as `chosen_rewards`, `rejected_rewards` (the margin not
      taken off).
    Deviations: none; TRL subtracts its `margin` column in the same way.
    >>> import jax.numpy as jnp
    >>> x = jnp.array([1.5]), jnp.array([0.5]), jnp.array([3.0])
    >>> round(float(bradley_terry_margin(*x)[0][0]), 4)
    2.1269
    """
    chosen, rejected, margin = f32(chosen_scores, rejected_scores, margin)
    # the margin is data, not a hyper-parameter: it differs by how clear the preference was
    loss = -jax.nn.log_sigmoid(chosen - rejected - margin)
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}


def bradley_terry_soft(
    chosen_scores: Float[Array, "B"],
    rejected_scores: Float[Array, "B"],
    chosen_prob: Float[Array, "B"],
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-p log sigmoid(chosen - rejected) - (1 - p) log sigmoid(rejected - chosen).

    The cross-entropy of softmax(chosen, rejected) with the labels (p, 1 - p), for labels that are
    probabilities: those of an AI labeller (RLAIF), or the share of annotators. The minimum is at a
    difference of log(p / (1 - p)), not at infinity.

    Args:
      chosen_scores, rejected_scores: scalar rewards read at the last response token (EOS).
      chosen_prob: p, the probability that the chosen response is the better one, in [0, 1]. Below
        1/2 "chosen" and "rejected" are only names.
    Returns:
      The unreduced loss, and the scores as `chosen_rewards`, `rejected_rewards`.
    Deviations: none. There is no margin beside a soft label: the sources use one or the other.
    >>> import jax.numpy as jnp
    >>> x = jnp.array([1.5]), jnp.array([0.5]), jnp.array([0.75])
    >>> round(float(bradley_terry_soft(*x)[0][0]), 4)
    0.5633
    """
    chosen, rejected, p = f32(chosen_scores, rejected_scores, chosen_prob)
    z = chosen - rejected
    # log_sigmoid(-z), since log(1 - sigmoid(z)) is -inf in float32 from about z = 17 on
    loss = -p * jax.nn.log_sigmoid(z) - (1 - p) * jax.nn.log_sigmoid(-z)
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}


def reward_centering(
    chosen_scores: Float[Array, "B"], rejected_scores: Float[Array, "B"]
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """(chosen + rejected)^2: pulls the mean reward of a pair to zero.

    The square of the SUM, not the sum of squares. Weight 0.01 in the paper.

    Args, Returns: scores as in `bradley_terry`; the unreduced term and no metrics.
    >>> import jax.numpy as jnp
    >>> reward_centering(jnp.array([1.5]), jnp.array([0.5]))[0].tolist()
    [4.0]
    """
    chosen, rejected = f32(chosen_scores, rejected_scores)
    # of the sum, the one direction that `bradley_terry` leaves free; squares of each would fight it
    return (chosen + rejected) ** 2, {}
