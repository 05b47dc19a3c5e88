"""Whether token ids and positions are inside of a model's tables.

Nothing else would say so: JAX clamps an index that is beyond a table, and fills NaN where a loss
gathers.
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
    """That a token has an embedding.

    Args:
      token: its id.
      text: the token as the tokenizer writes it.
      where: what holds it, such as "row 3 of the training data".
      model: how a person knows the model: its folder, or its key in the config.

    Raises:
      ValueError: it has none.
    """
    if not 0 <= token < spec.vocab_size:
        raise ValueError(
            f"{where} has the token {text!r} of id {token}, but {model} has {spec.vocab_size} "
            f"embeddings, of the ids 0 to {spec.vocab_size - 1}: {REMEDY}"
        )


def check_length(length: int, spec: Spec, *, where: str, model: str, remedy: str) -> str | None:
    """That a row has positions in the model.

    Args:
      length: tokens of the row, those that are sampled included.
      where, model: as in `check_token`.
      remedy: what makes rows shorter.

    Returns:
      A warning, if the row is longer than the model was trained for: rotary angles have values
      there, but nobody knows what the model makes of them.

    Raises:
      ValueError: learned positions end before the row does.
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
    """That every row of token ids, and `sampled` tokens after it, fits a model.

    Args:
      tokenizer: says what a token without an embedding is.
      what: a row is called that, with its number.
      model: as in `check_token`.

    Returns:
      A warning where the longest row is beyond the trained context.

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
