r"""Extract the final answer of a text, and the number in it.

Solutions put it in `\boxed{}` (MATH, Hendrycks et al. 2021, https://arxiv.org/abs/2103.03874)
or behind `####` on their last line (GSM8K, Cobbe et al. 2021, https://arxiv.org/abs/2110.14168).

The input is written by a model in training, which exploits any weakness of a parser: parsing takes
linear time, and the length of numbers is limited.
"""

from __future__ import annotations

import re
from fractions import Fraction

MARK = "####"
BOX = r"\boxed{"
LONGEST = 64  # characters of a number: longer ones are not answers, and slow to parse

# Three digits of exponent: Fraction('1e999999999') would fill the memory.
_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?|\.\d+"
# A sign right behind a word, a number or a closing bracket is an operator: 5-3, (a)-1.
_NUMBER = re.compile(rf"(?:(?<![\w)\]}}.%])[-+])?(?:{_UNSIGNED})(?:\s?/\s?(?:{_UNSIGNED}))?")
_FRAC = re.compile(r"\\[dt]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}")
_CURRENCY = re.compile(r"\\?\$(?=[\d.])")
_SAME = {"\u2212": "-", "\u2013": "-", "{,}": ",", r"\,": "", r"\!": ""}


def final_answer(text: str) -> str:
    r"""The content of the last `\boxed{}`; else the text behind `####` on the last line that is not
    blank; else the full text, stripped.

    A box that is not closed, as in a truncated response, is empty. `####` elsewhere is a heading.

    >>> final_answer("so it is \\boxed{\\frac{1}{2}} of it"), final_answer("3 + 4\n#### 7\n")
    ('\\frac{1}{2}', '7')
    """
    # The last box: solutions also box intermediate results.
    if BOX in text:
        return _balanced(text, text.rindex(BOX) + len(BOX)).strip()
    text = text.strip()
    last = text.rpartition("\n")[2]
    return last.rpartition(MARK)[2].strip() if MARK in last else text


def last_number(text: str) -> Fraction | None:
    r"""The last number of the final answer, exactly; None if there is none.

    It may have a sign, thousands in groups of three (1,234.5), decimals, an exponent of up to three
    digits (2e-3), or be a fraction (3/4, \frac{3}{4}); a minus directly behind a word or a number
    is an operator. Text around a number (a currency, a unit, a percent sign) is ignored: 50% is 50.
    A mixed number (1 1/2) is read as its fraction, and nothing is computed: of \frac{\sqrt{3}}{2}
    the last number is 2.

    >>> [last_number(text) for text in ("not 3 but -1,250.50", "half, so 50%.", "none")]
    [Fraction(-2501, 2), Fraction(50, 1), None]
    """
    answer = final_answer(text)
    for ours, theirs in _SAME.items():
        answer = answer.replace(ours, theirs)
    match = None
    answer = _CURRENCY.sub("", _FRAC.sub(r"\1/\2", answer)).replace("$", " ")
    # The last match without a list of all: a policy may write a million numbers.
    for match in _NUMBER.finditer(answer):  # noqa: B007
        pass
    return None if match is None else _value(match[0])


def _value(written: str) -> Fraction | None:
    if len(written) > LONGEST:
        return None
    above, _, below = re.sub(r"[,\s]", "", written).partition("/")
    try:
        return Fraction(above) / Fraction(below or 1)
    except ZeroDivisionError:
        return None


def _balanced(text: str, start: int) -> str:
    """The text from `start` to the matching closing brace; "" without one."""
    # A counter, as a regular expression for nested braces would backtrack.
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[start:i]
    return ""
