"""How evenly a router spreads the tokens of each response over its experts.

Letters: L layers, S streams, N tokens per stream, Q scored tokens per stream, E experts.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jalign.layout import Layout
from jalign.models.experts.router import selected


class RouterStatistics(NamedTuple):
    """One value per scored token, [S, Q], the mean over layers, in float32.

    Attributes:
      balance: sum_e f_e p_e, with p the router's probabilities and f_e = E / k times the share of
        the response's scored tokens that use expert e; its mean over a response is the
        sequence-wise balance loss of DeepSeek-V3 (https://arxiv.org/abs/2412.19437, equations 17
        to 20): 1 if all experts are equally likely and used. f has no gradient.
      z: (log sum_e exp logit_e)^2, the z-loss of ST-MoE (https://arxiv.org/abs/2202.08906,
        equation 5).
      entropy: of p, nats; at most log E.
      load: max_e f_e of the response: the most used expert's share over the mean share.
    """

    balance: Array
    z: Array
    entropy: Array
    load: Array


def router_statistics(
    logits: Float[Array, "L S N E"], layout: Layout, top_k: int
) -> RouterStatistics:
    """Statistics of the positions that predict scored tokens (`layout.before`). Responses are
    counted one by one, so that other responses, and the cutting of a batch, change nothing.
    """
    take = jax.vmap(lambda x, i: x[i])
    scored = (layout.at > 0).astype(jnp.float32)  # no scored token comes first in its row
    group, count = _responses(layout)

    def of_layer(logits: Float[Array, "S N E"]) -> Array:
        z = take(logits, layout.before)  # [S, Q, E]
        log_p = jax.nn.log_softmax(z)
        p, experts = jnp.exp(log_p), z.shape[-1]
        used = jax.nn.one_hot(selected(z, top_k), experts).sum(2) * scored[..., None]
        sums = jax.vmap(lambda x, g: jax.ops.segment_sum(x, g, count))
        share = sums(used, group) / jnp.maximum(sums(scored, group), 1)[..., None]
        f = jax.lax.stop_gradient(take(share, group)) * (experts / top_k)
        log_z = jax.nn.logsumexp(z, -1)
        return jnp.stack([(f * p).sum(-1), log_z**2, -(p * log_p).sum(-1), f.max(-1)])

    # One layer at a time: its probabilities of all scored tokens are [S, Q, E].
    return RouterStatistics(*jax.lax.map(jax.checkpoint(of_layer), logits).mean(0))


def _responses(layout: Layout) -> tuple[Int[Array, "S Q"], int]:
    """The response that each scored token of a stream belongs to, and how many a stream has."""
    streams, q = layout.at.shape
    if layout.slots.shape[0] != streams:  # padded: a stream is one response
        return jnp.zeros_like(layout.at), 1
    slots = layout.slots.reshape(streams, -1, layout.slots.shape[-1])
    ids = jnp.broadcast_to(jnp.arange(slots.shape[1])[:, None], slots.shape[1:])
    # Unused slots are 0, which is a token of the first response: the least id is right.
    last = jnp.full(q, slots.shape[1] - 1)
    responses = jax.vmap(lambda at: last.at[at.ravel()].min(ids.ravel()))(slots)
    return responses, slots.shape[1]
