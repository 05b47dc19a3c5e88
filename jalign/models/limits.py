"""Check that token ids and positions are within a model's tables.

JAX raises no error: it clamps an index beyond a table, or fills NaN where a loss gathers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jax.typing import ArrayLike

from jalign.models.spec import Spec

REMEDY = (
    "use the tokenizer that belongs to the model, or resize the model's embeddings to the tokenizer"
)


@runtime_checkable
class NamesTokens(Protocol):
    """What error messages need from a tokenizer."""

    def convert_ids_to_tokens(self, ids: int) -> str | list[str] | None: ...


def check_token(token: int, spec: Spec, *, text: object, where: str, model: str) -> None:
    """Check that a token has an embedding.

    Args:
      token: its id.
      text: the token as the tokenizer writes it.
      where: what holds it, such as "row 3 of the training data".
      model: the model's name in messages: its folder, or its key in the config.

    Raises:
      ValueError: the token has no embedding.
    """
    if not 0 <= token < spec.vocab_size:
        raise ValueError(
            f"{where} has the token {text!r} of id {token}, but {model} has {spec.vocab_size} "
            f"embeddings, of the ids 0 to {spec.vocab_size - 1}: {REMEDY}"
        )


def check_length(length: int, spec: Spec, *, where: str, model: str, remedy: str) -> str | None:
    """Check that a row has positions in the model.

    Args:
      length: tokens of the row, including those to be sampled.
      where, model: as in `check_token`.
      remedy: how to make rows shorter, for the message.

    Returns:
      A warning if the row is longer than the trained context: rotary angles exist there, but the
      model was not trained on them.

    Raises:
      ValueError: the row is longer than the learned position table.
    """
    room = spec.learned_positions
    if room is not None and length > room:
        raise ValueError(
            f"{where} takes {length} tokens, but {model} has {room} positions: {remedy}"
        )
    if spec.context is not None and length > spec.context:
        return (
            f"{where} takes {length} tokens, and {model} was trained for {spec.context} "
            f"(max_position_embeddings, with its rotary scaling): {remedy}"
        )
    return None


def check_rows(
    rows: Sequence[ArrayLike | Sequence[int]],
    spec: Spec,
    *,
    sampled: int = 0,
    tokenizer: NamesTokens | None = None,
    what: str = "prompt",
    model: str = "the model",
) -> str | None:
    """Check that every row of token ids, and `sampled` tokens after it, fits a model.

    Args:
      tokenizer: names a token without an embedding in the message.
      what: what messages call a row, followed by its number.
      model: as in `check_token`.

    Returns:
      A warning if the longest row is beyond the trained context.

    Raises:
      ValueError: a token without an embedding, or a row longer than learned positions.
    """
    arrays = [np.asarray(row, np.int64) for row in rows]
    for i, ids in enumerate(arrays):
        outside = ids[(ids < 0) | (ids >= spec.vocab_size)]
        if outside.size:
            token = int(outside[0])
            text = None
            if tokenizer is not None and token >= 0:
                text = tokenizer.convert_ids_to_tokens(token)
            text = text if isinstance(text, str) else None
            check_token(token, spec, text=text, where=f"{what} {i}", model=model)
    if not arrays:
        return None
    longest = int(np.argmax([len(ids) for ids in arrays]))
    of = f" of {len(arrays[longest])} tokens with max_new_tokens={sampled}" if sampled else ""
    return check_length(
        len(arrays[longest]) + sampled,
        spec,
        where=f"{what} {longest}{of}",
        model=model,
        remedy="make it shorter" + (", or set max_new_tokens lower" if sampled else ""),
    )
