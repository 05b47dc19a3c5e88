"""Stop strings: texts that end a response.

A compiled loop sees token ids, not texts, so stop strings are searched for when a response is back
on the host, and the tokens after the one that completes a stop string are dropped. Those
tokens are wasted, but the rest and its log-probs equal those of a sampler that checks every token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jalign.rollout.text import TokenDecoder, decode
from jalign.rollout.types import Rollout


def first_stop(tokenizer: TokenDecoder, tokens: np.ndarray, stops: Sequence[str]) -> int | None:
    """Number of tokens up to the end of the first stop string; None without one.

    >>> class Letters:
    ...     def decode(self, ids, skip_special_tokens): return "".join(chr(i) for i in ids)
    >>> first_stop(Letters(), np.array([97, 98, 10, 10, 99]), ["\\n\\n", "d"])
    4
    """

    def holds(n: int) -> bool:
        return any(stop in _following(tokenizer, tokens[:n].tolist()) for stop in stops)

    if not stops or not holds(len(tokens)):
        return None
    low, high = 0, len(tokens)  # bisection: a longer text still holds the stop string
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _following(tokenizer: TokenDecoder, ids: list[int]) -> str:
    """The text of tokens that continue a text. Some tokenizers drop a leading space, so the first
    token is decoded twice and its first occurrence removed.
    """
    before = decode(tokenizer, ids[:1], special=True)
    full_text = decode(tokenizer, ids[:1] + ids, special=True)
    if full_text.startswith(before):
        return full_text[len(before) :]
    return decode(tokenizer, ids, special=True)


def stop_at(rollout: Rollout, tokenizer: TokenDecoder, stops: Sequence[str]) -> Rollout:
    """The responses cut after their first stop string, which is kept; those count as finished.

    Raises:
      ValueError: an empty stop string.
    """
    if any(not stop for stop in stops):
        raise ValueError("an empty stop string would stop everywhere")
    if not stops:
        return rollout
    lengths, finished = rollout.lengths, rollout.finished.copy()
    for b, k in np.ndindex(*lengths.shape):
        if (n := first_stop(tokenizer, rollout.response(b, k), stops)) is not None:
            lengths[b, k], finished[b, k] = n, True
    return rollout.cut(lengths)._replace(finished=finished)
