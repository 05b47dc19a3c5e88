"""Outcome reward model: a verifier of final answers.

Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems".
https://arxiv.org/abs/2110.14168.
"""

import jax
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32


def outcome(
    scores: Float[Array, "B"], label: Bool[Array, "B"] | Float[Array, "B"]
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-y log sigmoid(score) - (1 - y) log sigmoid(-score): a verifier of whole responses.

    Unlike that of `bradley_terry`, the score has an absolute meaning: the logit of "this is right",
    comparable across prompts.

    Args:
      scores: logits read at the last response token (EOS).
      label: y, True or 1 where the response is right; a number between (a share of votes) will do.
    Returns:
      The unreduced loss, and the logits as `rewards`.
    Deviations: the authors also train at every token, and to model language beside; this is read
      once, at the end. For judgments of steps: `process_reward`.
    >>> import jax.numpy as jnp
    >>> [round(float(x), 4) for x in outcome(jnp.array([1.0, 1.0]), jnp.array([1.0, 0.25]))[0]]
    [0.3133, 1.0633]
    """
    scores, label = f32(scores, label)
    # a product and not a where: labels may be shares of votes
    loss = -label * jax.nn.log_sigmoid(scores) - (1 - label) * jax.nn.log_sigmoid(-scores)
    return loss, {"rewards": scores}
