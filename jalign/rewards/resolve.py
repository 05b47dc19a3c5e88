"""Reward functions by name: built-in rules and user functions.

`exact_match` is a rule of `jalign.rewards.rules`, `package.module:function` is imported from what
is installed, and `file.py:function` is read from that file. Both of the latter run the user's code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import NamedTuple

from jalign.core import did_you_mean
from jalign.rewards.rules import RULES
from jalign.user_code import attribute


def find(text: str) -> Callable[..., object]:
    """The function that a text names.

    Raises:
      ValueError: no such rule, file, module or function; names the nearest match.
      TypeError: the object is not callable.
    """
    if ":" in text:
        return attribute(text)
    if text not in RULES:
        raise ValueError(
            f"no reward function {text!r}{did_you_mean(text, RULES)} (or one of your own, as "
            "package.module:function or file.py:function)"
        )
    return RULES[text]


def display_name(text: str) -> str:
    """Name of a function in logs, without its module or file."""
    return text.rpartition(":")[2]


_RESPONSES = ("responses", "completions", "response", "completion")  # never what comes first


class Signature(NamedTuple):
    """Parameters of a reward function besides prompts and responses.

    Attributes:
      options: keywords with a default, which a config may set. Never filled from the data.
      required: keywords without a default: columns that the data must have.
      optional: keywords whose default is None: columns that are passed where the data has them.
      everything: takes all other columns too (`**columns`).
      placed: parameter names of prompts and responses: columns of these names are not passed.
    """

    options: frozenset[str]
    required: frozenset[str]
    optional: frozenset[str]
    everything: bool
    placed: frozenset[str] = frozenset()

    @classmethod
    def of(cls, fn: Callable[..., object], name: str) -> Signature:
        """Read the signature of a function.

        Raises:
          TypeError: a function that does not take prompts and responses by position.
        """
        try:
            parameters = list(inspect.signature(fn).parameters.values())
        except ValueError:  # some C functions have no signature
            return cls(frozenset(), frozenset(), frozenset(), False)
        several = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        swapped = bool(placed) and placed[0].name in _RESPONSES
        if swapped or (len(placed) < 2 and not several):
            raise TypeError(f"{name} must take (prompts, responses), it takes {_shown(placed)}")
        rest = [p for p in parameters if p.kind is p.KEYWORD_ONLY] + placed[2:]
        if bare := [p.name for p in placed[2:] if p.kind is p.POSITIONAL_ONLY]:
            raise TypeError(f"{name}: columns are given by name, and {_shown(placed)} hides {bare}")
        none = frozenset(p.name for p in rest if p.default is None)
        needed = frozenset(p.name for p in rest if p.default is p.empty)
        everything = any(p.kind is p.VAR_KEYWORD for p in parameters)
        # A column of the data called `prompts` would be a second value for the parameter.
        first = frozenset(p.name for p in placed[:2])
        return cls(frozenset(p.name for p in rest) - needed, needed, none, everything, first)

    def columns(self, names: Iterable[str]) -> list[str]:
        """The columns that are passed to the function."""
        wanted, hidden = self.required | self.optional, self.options | self.placed
        return [n for n in names if n in wanted or (self.everything and n not in hidden)]


def _shown(parameters: list[inspect.Parameter]) -> str:
    return f"({', '.join(p.name for p in parameters)})"
