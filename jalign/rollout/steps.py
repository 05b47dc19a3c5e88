"""Where the steps of a sampled response end.

As with stop strings, a compiled loop sees token ids only, so steps are found when a response is
back on the host.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

import numpy as np

from jalign.rollout.text import TokenDecoder, decode


def step_ends(tokenizer: TokenDecoder, tokens: np.ndarray, separator: str) -> list[int]:
    """Positions of the last tokens of the steps of a response, ascending.

    A step ends with the token that completes the separator's text, and at the end of the response.
    Separators, space and special tokens alone are not a step: they belong to the step before them
    (a run of line breaks, the EOS), at the front to the first one. A response of nothing else is
    one step; a response without tokens has none.

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
        # Prefixes, since a separator may be spread over several tokens.
        text = decode(tokenizer, tokens[:n], special=True)
        return text.count(separator)

    def blank(start: int, end: int) -> bool:
        text = decode(tokenizer, tokens[start : end + 1])
        return not text.replace(separator, "").strip()

    lengths = range(1, len(tokens) + 1)
    last = len(tokens) - 1
    # Bisection by the number of separators in a prefix: decoding every prefix is quadratic.
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
