"""The steps of a sampled response: which tokens they end with.

As with stop strings, a compiled loop knows token ids only, so that steps are found when a response
is back on the host.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from typing import Any

import numpy as np


def step_ends(tokenizer: Any, tokens: np.ndarray, separator: str) -> list[int]:
    """Places of the last tokens of the steps of a response, rising.

    A step ends with the token that completes the separator's text, and at the end of the response.
    What holds nothing but separators, space and special tokens is no step of its own: it belongs
    to the step before it (a run of line breaks, the EOS), at the front to the first one. A response
    of nothing else is one step; without tokens there is none.

    Args:
      tokens: [r] ids.
      separator: a text.

    Raises:
      ValueError: an empty separator.

    >>> class Letters:
    ...     def decode(self, ids, skip_special_tokens): return "".join(chr(i) for i in ids)
    >>> step_ends(Letters(), np.array([*b"a.b..c"]), ".")
    [1, 4, 5]
    """
    if not separator:
        raise ValueError("an empty separator would end a step everywhere")

    @cache
    def separators(n: int) -> int:
        text = tokenizer.decode(tokens[:n].tolist(), skip_special_tokens=False)
        return text.count(separator)

    def blank(start: int, end: int) -> bool:
        text = tokenizer.decode(tokens[start : end + 1].tolist(), skip_special_tokens=True)
        return not text.replace(separator, "").strip()

    lengths = range(1, len(tokens) + 1)
    last = len(tokens) - 1
    completed = {
        bisect_left(lengths, i, key=separators) for i in range(1, separators(len(tokens)) + 1)
    }
    ends: list[int] = []
    for end in sorted(completed | {last}) if len(tokens) else ():
        if not blank(ends[-1] + 1 if ends else 0, end):
            ends.append(end)
        elif ends:
            ends[-1] = end
    return ends or [last] * bool(len(tokens))
