"""Gradient ascent on the loss of responses to unlearn: a control, not a method to use.

Jang et al. 2022, "Knowledge Unlearning for Mitigating Privacy Risks in Language Models".
https://arxiv.org/abs/2210.01504; as a control in NPO, https://arxiv.org/abs/2404.05868.
"""

from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32


def gradient_ascent(
    rejected_logps: Float[Array, "B"],
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """+log p(rejected | prompt), SUMMED over tokens, to be minimized: ascent on the NLL.

    Nothing bounds it from below: the gradient stays 1 however unlikely the response has become, and
    the model collapses. It is here to be compared with: `npo` tends to it as beta goes to 0.

    Args:
      rejected_logps: log p(response to unlearn | prompt), nats, summed over response tokens.
    Returns:
      The unreduced loss, <= 0, and no metrics.
    >>> import jax.numpy as jnp
    >>> gradient_ascent(jnp.array([-9.5]))[0].tolist()
    [-9.5]
    """
    (rejected,) = f32(rejected_logps)
    # no minus: minimizing log p is the ascent
    return rejected, {}
