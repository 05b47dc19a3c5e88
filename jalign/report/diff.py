"""Differences of two texts, word by word, as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby

from markupsafe import Markup, escape

_LONGEST = 1500
"""Words of a text that are compared; the matching takes time that grows with their square."""


def words(text: str) -> list[str]:
    """Words, each with the spaces before it.

    >>> words("One  day, she ran")
    ['One', '  day,', ' she', ' ran']
    """
    return re.findall(r"\s*\S+|\s+$", text)


def _stretches(
    opcodes: Sequence[tuple[str, int, int, int, int]],
) -> Iterator[tuple[bool, int, int, int, int]]:
    """Equal and different stretches in turn. A single equal word between two different ones counts
    as different: common words match anywhere.
    """
    last = len(opcodes) - 1
    equal = [
        kind == "equal" and (i in (0, last) or a1 - a0 > 1)
        for i, (kind, a0, a1, _, _) in enumerate(opcodes)
    ]
    for same, group in groupby(zip(equal, opcodes, strict=True), key=lambda pair: pair[0]):
        parts = [opcode for _, opcode in group]
        yield same, parts[0][1], parts[-1][2], parts[0][3], parts[-1][4]


def word_diff(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts, with the words that only one of them has in <del> and <ins>.

    >>> word_diff("a sad cat", "a happy cat")
    (Markup('a<del> sad</del> cat'), Markup('a<ins> happy</ins> cat'))
    """
    x, y = words(before), words(after)
    if max(len(x), len(y)) > _LONGEST:
        return escape(before), escape(after)
    # autojunk would not match words that are frequent in long texts
    matcher = SequenceMatcher(None, x, y, autojunk=False)
    left, right = Markup(""), Markup("")
    for equal, a0, a1, b0, b1 in _stretches(matcher.get_opcodes()):
        old, new = "".join(x[a0:a1]), "".join(y[b0:b1])
        if equal:
            left, right = left + old, right + new
            continue
        if old:
            left += Markup("<del>{}</del>").format(old)
        if new:
            right += Markup("<ins>{}</ins>").format(new)
    return left, right
