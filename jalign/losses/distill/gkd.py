"""GKD: generalized knowledge distillation, and its ends, forward and reverse KL.

Agarwal et al. 2023, "On-Policy Distillation of Language Models: Learning from Self-Generated
Mistakes". https://arxiv.org/abs/2306.13649. Reverse KL for language models also: Gu et al. 2023,
"MiniLLM". https://arxiv.org/abs/2306.08543.

Nothing is computed here. A divergence between two distributions over the vocabulary needs both
models at once and must not hold [tokens, vocabulary] arrays, so the scorer computes it, in blocks.
The TEACHER is the reference (`ref`) here and must be another model than the policy. The same
divergences from logits: `jalign.losses.distill.divergence`.
"""

from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32

Out = tuple[Float[Array, "B R"], dict[str, Float[Array, "B R"]]]


def gkd(jsd_to_ref: Float[Array, "B R"]) -> Out:
    """b KL(T || m) + (1 - b) KL(S || m) at each token, m = b T + (1 - b) S: generalized JSD.

    T is the teacher's distribution of the next token, S the student's. Averaged over tokens. On the
    student's own samples this is on-policy distillation, on given responses supervised; no gradient
    goes through sampling.

    Args:
      jsd_to_ref: the divergence at each token, nats, >= 0, from the scorer, which reads its numbers
        b (`jsd_beta`, in [0, 1]; 0 is KL(T || S), 1 is KL(S || T)) and `temperature` of both
        distributions.
    Returns:
      The unreduced loss [B, R], and it again as `jsd`. Unscored positions hold garbage: mask them.
    Deviations: none in value from TRL's GKD; the mixture of sampled and given responses belongs to
      the data.
    >>> import jax.numpy as jnp
    >>> gkd(jnp.array([[0.25, 0.5]]))[0].tolist()
    [[0.25, 0.5]]
    """
    # nothing to compute: the scorer has the gradient too, block by block of the vocabulary
    (loss,) = f32(jsd_to_ref)
    return loss, {"jsd": loss}


def forward_kl(kl_from_ref: Float[Array, "B R"]) -> Out:
    """KL(teacher || student) at each token: the student covers all modes of the teacher.

    Word-level knowledge distillation: up to the teacher's entropy, cross-entropy with the teacher's
    probabilities as labels. `gkd` with b = 0.

    Args:
      kl_from_ref: the divergence at each token, nats, >= 0, from the scorer, with the teacher as
        the reference.
    Returns:
      The unreduced loss [B, R], and it again as `forward_kl`. Mask unscored positions.
    >>> import jax.numpy as jnp
    >>> forward_kl(jnp.array([[0.25, 0.5]]))[0].tolist()
    [[0.25, 0.5]]
    """
    (loss,) = f32(kl_from_ref)
    return loss, {"forward_kl": loss}


def reverse_kl(kl_to_ref: Float[Array, "B R"]) -> Out:
    """KL(student || teacher) at each token: the student keeps to the teacher's likely tokens.

    `gkd` with b = 1.

    Args:
      kl_to_ref: the divergence at each token, nats, >= 0, from the scorer, with the teacher as the
        reference.
    Returns:
      The unreduced loss [B, R], and it again as `reverse_kl`. Mask unscored positions.
    Deviations: MiniLLM also follows how a token changes those that come after it, by policy
      gradient; this takes each position by itself, on the responses as they are.
    >>> import jax.numpy as jnp
    >>> reverse_kl(jnp.array([[0.25, 0.5]]))[0].tolist()
    [[0.25, 0.5]]
    """
    (loss,) = f32(kl_to_ref)
    return loss, {"reverse_kl": loss}
