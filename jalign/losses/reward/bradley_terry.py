"""Bradley-Terry reward models.

Ouyang et al. 2022 (InstructGPT). https://arxiv.org/abs/2203.02155, Eq. 1 with two responses per
prompt;
centering: Eisenstein et al. 2023. https://arxiv.org/abs/2312.09244, Eq. 2.
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
    loss = -jax.nn.log_sigmoid(chosen - rejected)
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
    return (chosen + rejected) ** 2, {}
