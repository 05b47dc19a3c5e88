"""The pretraining loss of PPO-ptx: the NLL of text that the policy did not write.

Ouyang et al. 2022 (InstructGPT), https://arxiv.org/abs/2203.02155, Eq. 2: RLHF makes a model worse
at tasks it had learned in pretraining; mixing pretraining text into each batch prevents this.
"""

from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._tokens import scored

Out = tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]


def pretraining_nll(token_logps: Float[Array, "B R"], pretraining_mask: Bool[Array, "B R"]) -> Out:
    """-log p(token) at the tokens of pretraining text, 0 at those of the policy's own samples.

    Args:
      token_logps: log p of each token, nats, at the temperature of sampling.
      pretraining_mask: scored positions of examples that are pretraining text.
    Returns:
      The unreduced term, nats, and it again as `pretraining/nll`.
    Deviations: the paper weighs it by 27.8 beside rewards of its own scale; OpenRLHF by 0.05.
    >>> import jax.numpy as jnp
    >>> logps, mask = jnp.array([[-0.5, -9.0]]), jnp.array([[True, False]])
    >>> pretraining_nll(logps, mask)[0].tolist()
    [[0.5, 0.0]]
    """
    (logps,) = scored(pretraining_mask, token_logps)
    # 0 - x: negating the zeros of unscored positions gives -0.0
    return 0.0 - logps, {"pretraining/nll": 0.0 - logps}
