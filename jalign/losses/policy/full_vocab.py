"""Terms over the full next-token distribution: the exact KL divergence, and the entropy.

Schulman et al. 2017, https://arxiv.org/abs/1707.06347, Eq. 9 (entropy); Ziegler et al. 2019,
https://arxiv.org/abs/1909.08593 (KL from the initial policy).

Both need all logits, so the scorer computes them, in blocks.
"""

from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._tokens import scored

Out = tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]


def kl_exact(kl_to_ref: Float[Array, "B R"], mask: Bool[Array, "B R"]) -> Out:
    """KL(p || ref) of the next token over the vocabulary: no variance from the token drawn.

    Args:
      kl_to_ref: the divergence at each token, nats, >= 0.
      mask: scored positions; values elsewhere are ignored.
    Returns:
      The unreduced term, nats, 0 at unscored positions, and it again as `kl_exact`.
    Deviations: none. Like the estimators of `jalign.losses.policy.kl` it does not follow how a
      token changes those after it.
    >>> import jax.numpy as jnp
    >>> kl_exact(jnp.array([[0.5, 9.0]]), jnp.array([[True, False]]))[0].tolist()
    [[0.5, 0.0]]
    """
    # from the scorer: [tokens, vocabulary] logits exist only block by block inside it
    (loss,) = scored(mask, kl_to_ref)
    return loss, {"kl_exact": loss}


def entropy_bonus(entropy: Float[Array, "B R"], mask: Bool[Array, "B R"]) -> Out:
    """-H(p) of the next token: a positive weight keeps the policy from collapsing.

    Args:
      entropy: H(p) at each token, nats, >= 0.
      mask: scored positions; values elsewhere are ignored.
    Returns:
      The unreduced term, 0 at unscored positions, and the entropy as `entropy`.
    Deviations: none. The usual weights are small, 0 to 0.01.
    >>> import jax.numpy as jnp
    >>> entropy_bonus(jnp.array([[0.5, 9.0]]), jnp.array([[True, False]]))[0].tolist()
    [[-0.5, -0.0]]
    """
    (entropy,) = scored(mask, entropy)
    # terms are minimized: a positive entropy_coef must raise the entropy
    return -entropy, {"entropy": entropy}
