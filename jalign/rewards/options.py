"""Probabilities of answer options from token log-probs.

The probability of an option is that of all continuations that start with it and not with a longer
option: if a tokenizer splits "10" into "1" and "0",

    P("10") = P("1") P("0" | "1")        P("1") = P("1") - P("10"),

and if "10" is one token, P("1") is unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

LOOSE = 0.01
"""Maximum share of the options' probability on tokens that the server did not follow."""


LEAST = 0.1
"""Minimum total probability of the options: an answer that begins with thoughts or a greeting has
chosen none."""


class TokenLogprobs(NamedTuple):
    """A token of an answer, as a server reports it.

    Attributes:
      text: of the token that was taken.
      logp: its log-probability, nats.
      others: text -> log-probability of the most probable tokens at its position.
    """

    text: str
    logp: float
    others: Mapping[str, float]


def exclusive(ids: Sequence[tuple[int, ...]], logps: Sequence[float]) -> list[float]:
    """log P(an option and no longer one that starts with it), nats.

    Args:
      ids: tokens of each option, at least one.
      logps: log-probability of those tokens (the chain rule), nats.

    >>> p = exclusive([(7,), (7, 8), (9,)], [math.log(0.5), math.log(0.2), math.log(0.4)])
    >>> [round(math.exp(x), 6) for x in p]
    [0.3, 0.2, 0.4]
    """
    left: dict[tuple[int, ...], float] = {}
    known = dict(zip(ids, logps, strict=True))
    # Longest first: an option must be known before it is taken off the shorter one.
    for option in sorted(known, key=len, reverse=True):
        longer = sum(p for other, p in left.items() if _goes_on(option, other))
        # Rounding can make the longer options more probable than what they begin with.
        left[option] = max(math.exp(known[option]) - longer, 0.0)
    # An option that no longer one starts with keeps its log-prob, which may underflow in exp.
    return [
        known[x] if not any(_goes_on(x, y) for y in known) else _log(left[x], -math.inf)
        for x in ids
    ]


def from_steps(steps: Sequence[TokenLogprobs], options: Sequence[str]) -> list[float] | None:
    """log-probabilities (nats) of options, from an answer with the alternatives to its tokens.

    An option gets the probability of every alternative that spells it out. An unlisted option gets
    its upper bound: the remainder of the list, or the lowest probability in it if that is less.
    Alternatives that were not taken are not followed. An answer that ends at an option has not
    chosen a longer one.

    Returns:
      One number per option; None (unknown) if the listed options have a total probability below
      `LEAST`, or more than the share `LOOSE` of it is on the first token of an option that was not
      followed ("1" of a "10" that is two tokens).

    >>> steps = [TokenLogprobs("1", math.log(0.6), {"2": math.log(0.3)})]
    >>> [round(math.exp(p), 6) for p in from_steps(steps, ["1", "2", "3"])]
    [0.6, 0.3, 0.1]
    """
    masses = dict.fromkeys(options, 0.0)
    loose, before, so_far, owner = 0.0, "", 0.0, None
    for step in steps:
        listed = {**step.others, step.text: step.logp}
        spelled = {before + token for token in listed}
        for token, logp in listed.items():
            # Servers round log-probabilities; a sum above 0 would be a probability above 1.
            text, mass = before + token, math.exp(min(so_far + logp, 0.0))
            if text in masses:
                masses[text] += mass
                if owner is not None:  # it was counted as the shorter option before
                    masses[owner] -= mass
            if token and token != step.text and _open(text, masses, spelled):
                loose += mass
        before, so_far = before + step.text, so_far + step.logp
        owner = before if before in masses else owner
        # What follows can no longer change which option was answered.
        if not any(_goes_on(before, option) for option in options):
            break
    total = sum(masses.values())
    if not steps or not total >= LEAST or loose > LOOSE * total:
        return None
    most = _most_unlisted({**steps[0].others, steps[0].text: steps[0].logp})
    return [_log(p, most) for p in masses.values()]


def _goes_on(short: Sequence, long: Sequence) -> bool:
    return len(long) > len(short) and long[: len(short)] == short


def _open(text: str, options: Iterable[str], spelled: set[str]) -> bool:
    """Whether an option is longer than this text, which begins it, and not spelled out."""
    return any(_goes_on(text, option) and option not in spelled for option in options)


def _most_unlisted(listed: Mapping[str, float]) -> float:
    """Log of the maximum probability of a token that is not listed."""
    rest = 1.0 - sum(math.exp(min(logp, 0.0)) for logp in listed.values())
    return min(math.log(max(rest, 1e-9)), *listed.values())  # the listed ones are rounded


def _log(p: float, otherwise: float) -> float:
    return float(np.log(p)) if p > 0 else otherwise
