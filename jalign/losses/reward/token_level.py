"""Token-level Bradley-Terry reward model: a reward per token, learned from pairs of responses.

Rafailov et al. 2024, "From r to Q*: Your Language Model is Secretly a Q-Function".
https://arxiv.org/abs/2404.12358, Eq. 3: the Bradley-Terry model of preferences over trajectories,
here with a reward head instead of the policy's own log-ratios.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32


def token_bradley_terry(
    chosen_token_scores: Float[Array, "B R"],
    rejected_token_scores: Float[Array, "B R"],
    chosen_mask: Bool[Array, "B R"],
    rejected_mask: Bool[Array, "B R"],
) -> tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]:
    """-log sigmoid(sum of chosen token rewards - sum of rejected token rewards).

    The SUM over tokens, not divided by the length: a response's reward is the return of its tokens,
    so the head's output at a token can serve RL as a dense reward, and these add up to the learned
    reward. The price: a head that gives every token the same reward prefers by length alone, and a
    reward's scale shrinks with the length of responses.

    Args:
      chosen_token_scores, rejected_token_scores: output of the reward head at each response token.
      chosen_mask, rejected_mask: where there is a token.
    Returns:
      The unreduced loss per pair, and the two sums as `chosen_rewards`, `rejected_rewards`.
    Deviations: the paper reads the token rewards off a policy trained by DPO; this follows
      no public code. TRL has none.
    >>> import jax.numpy as jnp
    >>> a = lambda *x: jnp.array([x])
    >>> x = a(1.0, 0.5), a(0.25, 9.0), a(True, True), a(True, False)
    >>> round(float(token_bradley_terry(*x)[0][0]), 4)
    0.2519
    """
    chosen, rejected = f32(chosen_token_scores, rejected_token_scores)
    # masked first: the head has an output at every position, padding included
    chosen = jnp.sum(jnp.where(chosen_mask, chosen, 0.0), -1)
    rejected = jnp.sum(jnp.where(rejected_mask, rejected, 0.0), -1)
    loss = -jax.nn.log_sigmoid(chosen - rejected)
    return loss, {"chosen_rewards": chosen, "rejected_rewards": rejected}
