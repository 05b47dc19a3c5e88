"""Responses that end at a text.

A compiled loop knows token ids, not texts, so stop strings are looked for when a response is back
on the host: tokens after the one that completes a stop string are dropped. They were sampled in
vain, but what stays, with its log-probs, is what a sampler that looks at every token would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jalign.rollout.groups import Responses


def first_stop(tokenizer: Any, tokens: np.ndarray, stops: Sequence[str]) -> int | None:
    """How many tokens stand up to the end of the first stop string; None without one.

    >>> class Letters:
    ...     def decode(self, ids, skip_special_tokens): return "".join(chr(i) for i in ids)
    >>> first_stop(Letters(), np.array([97, 98, 10, 10, 99]), ["\\n\\n", "d"])
    4
    """

    def holds(n: int) -> bool:
        return any(stop in _following(tokenizer, tokens[:n].tolist()) for stop in stops)

    if not stops or not holds(len(tokens)):
        return None
    low, high = 0, len(tokens)  # a text that holds a stop string goes on holding it
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _following(tokenizer: Any, ids: list[int]) -> str:
    """The text of tokens that follow others: at the start of a text some tokenizers drop a space,
    so that the first token stands before them once more.
    """
    before = tokenizer.decode(ids[:1], skip_special_tokens=False)
    whole = tokenizer.decode(ids[:1] + ids, skip_special_tokens=False)
    if whole.startswith(before):
        return whole[len(before) :]
    return tokenizer.decode(ids, skip_special_tokens=False)


def stop_at(responses: Responses, tokenizer: Any, stops: Sequence[str]) -> Responses:
    """The responses up to their first stop string, which stays; those count as finished.

    Raises:
      ValueError: an empty stop string.
    """
    if any(not stop for stop in stops):
        raise ValueError("an empty stop string would stop everywhere")
    finished = responses.finished.copy()
    tokens, logps = [list(r) for r in responses.tokens], [list(r) for r in responses.token_logps]
    for b, row in enumerate(tokens):
        for k, ids in enumerate(row):
            if (n := first_stop(tokenizer, ids, stops)) is not None:
                row[k], logps[b][k] = ids[:n], logps[b][k][:n]
                finished[b, k] = True
    return Responses(tokens, logps, finished)
