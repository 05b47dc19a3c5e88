"""Terms added to a preference loss: drift from the reference, and margin by length.

`forward_kl_on_chosen` is the KL term on retained text of Zhang et al. 2024 (NPO),
https://arxiv.org/abs/2404.05868; `forward_kl_per_token` the same for single responses.
`length_margin` is our own; it has no paper.
"""

from jax import Array
from jaxtyping import Float

from jalign.losses._math import f32

Out = tuple[Float[Array, "B"], dict[str, Float[Array, "B"]]]


def forward_kl_on_chosen(
    chosen_kl_from_ref: Float[Array, "B"], chosen_len: Float[Array, "B"]
) -> Out:
    """KL(reference || policy) over the vocabulary, mean over the tokens of the chosen response.

    0 where the policy is the reference, positive elsewhere: a penalty on drift, and NPO's way to
    retain what the chosen responses show. It pulls to the reference's whole distribution, not to
    the tokens that happen to be there, as `nll` does.

    Args:
      chosen_kl_from_ref: KL(ref || policy) over the vocabulary, nats, SUMMED over the tokens of the
        chosen response, >= 0.
      chosen_len: scored tokens, >= 1.
    Returns:
      The unreduced term, nats per token, and it again as `chosen_kl`.
    >>> import jax.numpy as jnp
    >>> forward_kl_on_chosen(jnp.array([1.5]), jnp.array([6.0]))[0].tolist()
    [0.25]
    """
    kl, length = f32(chosen_kl_from_ref, chosen_len)
    # divided here and weighted by chosen_len in the reduction: the mean over the tokens of the step
    loss = kl / length
    return loss, {"chosen_kl": loss}


def forward_kl_per_token(kl_from_ref: Float[Array, "B"], len: Float[Array, "B"]) -> Out:
    """KL(reference || policy) over the vocabulary, mean over the tokens of the response.

    `forward_kl_on_chosen` for a response without a pair, whatever its label.

    Args:
      kl_from_ref: KL(ref || policy) over the vocabulary, nats, SUMMED over response tokens, >= 0.
      len: scored tokens, >= 1.
    Returns:
      The unreduced term, nats per token, and it again as `forward_kl`.
    >>> import jax.numpy as jnp
    >>> forward_kl_per_token(jnp.array([1.5]), jnp.array([6.0]))[0].tolist()
    [0.25]
    """
    kl, length = f32(kl_from_ref, len)
    loss = kl / length
    return loss, {"forward_kl": loss}


def length_margin(
    chosen_logps: Float[Array, "B"],
    rejected_logps: Float[Array, "B"],
    chosen_len: Float[Array, "B"],
    rejected_len: Float[Array, "B"],
) -> Out:
    """(mean chosen - mean rejected log p) * (n_w - n_l) / (n_w + n_l): margin that follows length.

    The margin is in nats per token, the second factor the relative difference of the lengths, in
    (-1, 1). Positive where the longer response is the likelier, so its mean over a batch
    measures how far the margin follows length, and a small weight on it works against that.

    Linear, so unbounded below: if the chosen response is the shorter one, more margin always lowers
    it. Give it a small weight beside a loss that bounds the margin.

    Args:
      chosen_logps, rejected_logps: nats, summed over response tokens.
      chosen_len, rejected_len: n_w and n_l, scored tokens, >= 1.
    Returns:
      The unreduced term, nats per token; 0 where the lengths are equal; it again as
      `length_margin`.
    Deviations: none; there is no paper.
    >>> import jax.numpy as jnp
    >>> x = [jnp.array([v]) for v in (-4.0, -9.0, 5.0, 3.0)]
    >>> round(float(length_margin(*x)[0][0]), 4)
    0.55
    """
    chosen, rejected, n_chosen, n_rejected = f32(
        chosen_logps, rejected_logps, chosen_len, rejected_len
    )
    # per token, else the margin of sums would itself grow with the length it is compared with
    margin = chosen / n_chosen - rejected / n_rejected
    # relative to the sum of lengths: bounded by 1, so that one long pair cannot dominate a batch
    loss = margin * (n_chosen - n_rejected) / (n_chosen + n_rejected)
    return loss, {"length_margin": loss}
