"""Helpers of losses over lists of K responses, some of which may be missing.

Values of a missing response may be NaN: they are replaced before anything is computed from it.
Responses of equal rating are never compared with each other.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from jalign.losses._math import f32

FAR = -1e30  # instead of -inf, which would make 0 * inf and inf - inf; exp() of it is 0


def kept(valid: Bool[Array, "B K"], *arrays: Float[Array, "B K"]) -> tuple[Array, ...]:
    """The arrays in float32, with 0 where there is no response."""
    return tuple(jnp.where(valid, x, 0.0) for x in f32(*arrays))


def above(ratings: Float[Array, "B K"], valid: Bool[Array, "B K"]) -> Bool[Array, "B K K"]:
    """[b, i, j] is True where both responses exist and i is rated higher than j."""
    # strictly: a tie counted in both directions would pull the two responses against each other
    better = ratings[:, :, None] > ratings[:, None, :]
    return better & valid[:, :, None] & valid[:, None, :]


def over_pairs(pairs: Bool[Array, "B K K"], x: Float[Array, "B K K"]) -> Float[Array, "B"]:
    """Sum of `x` over `pairs`; 0 where a list has none."""
    return jnp.sum(jnp.where(pairs, x, 0.0), (1, 2))


def leads(scores: Float[Array, "B K"]) -> Float[Array, "B K K"]:
    """[b, i, j] is scores_i - scores_j."""
    return scores[:, :, None] - scores[:, None, :]


def best(ratings: Float[Array, "B K"], valid: Bool[Array, "B K"]) -> Bool[Array, "B K"]:
    """True at the response with the highest rating, the first of equals; nowhere if empty."""
    # one index, not ratings == maximum: of several best only one is the supervised target
    first = jnp.argmax(jnp.where(valid, ratings, -jnp.inf), -1, keepdims=True)
    return valid & (jnp.arange(valid.shape[-1]) == first)


def log_sum_exp(x: Float[Array, "*P K"], mask: Bool[Array, "*P K"]) -> Float[Array, "*P"]:
    """Masked log sum exp over the last axis; about FAR if the mask is empty."""
    return jax.nn.logsumexp(jnp.where(mask, x, FAR), axis=-1)


def log_softmax(x: Float[Array, "B K"], valid: Bool[Array, "B K"]) -> Float[Array, "B K"]:
    """log softmax over the responses that exist; 0 at the others."""
    # in an empty list log_sum_exp is about FAR, and x minus it would be 1e30
    return jnp.where(valid, x - log_sum_exp(x, valid)[:, None], 0.0)


def plackett_luce_nll(
    scores: Float[Array, "B K"], ratings: Float[Array, "B K"], valid: Bool[Array, "B K"]
) -> Float[Array, "B"]:
    """-log probability of the order of `ratings` when responses are drawn one after the other,
    each with probability softmax(scores) among itself and those rated lower.
    """
    # a response is a candidate of its own draw, so the lowest one has probability 1 and adds 0
    itself = jnp.eye(valid.shape[-1], dtype=bool) & valid[:, None, :]
    left = jnp.broadcast_to(scores[:, None, :], itself.shape)
    left = log_sum_exp(left, above(ratings, valid) | itself)
    return jnp.sum(jnp.where(valid, left - scores, 0.0), -1)
