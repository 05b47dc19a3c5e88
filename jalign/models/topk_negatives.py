"""Top-k negative tokens for CRINGE: the model's likeliest tokens other than the target.

Shape letters: S streams (an optional leading axis), Q tokens per stream, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jalign.models.logprobs import LOWEST, with_streams
from jalign.models.vocabulary import Head, over_blocks, sweep


def topk_negatives(
    hidden: Float[Array, "*S Q D"],
    weight: Array,
    targets: Int[Array, "*S Q"],
    *,
    top_k: int,
    key: Array | None,
    vocab_axis: int,
    **head_options: Any,
) -> Int[Array, "*S Q"]:
    """For each position one of the `top_k` likeliest tokens other than the target.

    Drawn with its probability among them, as Adolphs et al. 2022 (CRINGE,
    https://arxiv.org/abs/2211.05826, Sec. 3) do; without a key the likeliest one. Vocabulary blocks
    are swept with a running top k, so no [tokens, vocabulary] array exists. Has no gradient: score
    the result with `logprobs.token_logps`.

    Args:
      top_k: at least 1.
      The others as in `logprobs.token_logps`.

    Raises:
      ValueError: top_k out of range.
    """
    most = weight.shape[vocab_axis] - 1
    if not 1 <= top_k <= most:
        raise ValueError(f"top_k must be in [1, {most}] for this vocabulary, got {top_k}")
    shape, hidden = hidden.shape[:-1], jax.lax.stop_gradient(with_streams(hidden))
    weight = jax.lax.stop_gradient(weight)
    head = Head.of(hidden, weight, vocab_axis=vocab_axis, **head_options)

    def run(blk):
        def keep_best(c, first, block):
            z = head.logits(head.times(blk["h"], block))
            ids = jnp.broadcast_to(head.ids(weight, first, z.shape[1]), z.shape)
            # Excluded before the top k, so that k others remain.
            z = jnp.where(ids == blk["y"][:, None], LOWEST, z)
            values = jnp.concatenate([c["values"], z], -1)
            names = jnp.concatenate([c["ids"], ids], -1)
            values, at = jax.lax.top_k(values, top_k)
            return {"values": values, "ids": jnp.take_along_axis(names, at, -1)}

        start = {
            "values": jnp.full((blk["h"].shape[0], top_k), LOWEST, jnp.float32),
            "ids": jnp.zeros((blk["h"].shape[0], top_k), jnp.int32),
        }
        return sweep([(head, weight)], keep_best, start)

    blocks = over_blocks(
        run, {"h": head.cut(hidden), "y": head.cut(targets.reshape(hidden.shape[:-1]))}
    )
    best = {name: head.join(x, *hidden.shape[:2]) for name, x in blocks.items()}
    if key is None or top_k == 1:
        return best["ids"][..., 0].reshape(shape)
    # Logits of the kept tokens suffice: the normalizer over V cancels among them.
    drawn = jax.random.categorical(key, best["values"])
    return jnp.take_along_axis(best["ids"], drawn[..., None], -1)[..., 0].reshape(shape)
