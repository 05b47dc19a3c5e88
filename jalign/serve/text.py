"""The text of a response while it grows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from jalign.rollout.stops import first_stop
from jalign.rollout.text import TokenDecoder, continuation

_BEFORE = 8  # tokens of the prompt that decide how the first tokens of a response are written
_UNFINISHED = "\ufffd"  # a character of which a token holds the first bytes only


class ResponseText:
    """Tokens in, text out; the text ends before the first stop string.

    Args:
      tokenizer: of the model.
      prompt: token ids.
      ends: ids of tokens that end a response and have no text.
      stops: texts.
    """

    def __init__(
        self,
        tokenizer: TokenDecoder,
        prompt: Sequence[int],
        ends: Collection[int] = (),
        stops: Sequence[str] = (),
    ):
        self._tokenizer, self._ends, self._stops = tokenizer, ends, tuple(stops)
        self._before = list(prompt[-_BEFORE:])
        self._ids: list[int] = []
        self._sent = ""

    def add(self, ids: Sequence[int], last: bool) -> tuple[str, int | None]:
        """New text, and how many of the new tokens belong to the response if a stop string ends
        it (else None).

        Args:
          last: no tokens follow.
        """
        earlier = len(self._ids)
        self._ids += ids
        stop = first_stop(self._tokenizer, np.asarray(self._ids), self._stops)
        text = continuation(self._tokenizer, self._before, self._ids[:stop], self._ends)
        if stop is not None:
            text = text[: min((i for s in self._stops if (i := text.find(s)) >= 0), default=None)]
        elif not last:
            text = self._settled(text)
        # A tokenizer may write earlier tokens differently once others follow: wait for the end.
        new = text[len(self._sent) :] if last or text.startswith(self._sent) else ""
        self._sent += new
        return new, None if stop is None else max(stop - earlier, 0)

    def _settled(self, text: str) -> str:
        """The part that further tokens cannot change."""
        text = text.rstrip(_UNFINISHED)
        held = max(
            (n for s in self._stops for n in range(1, len(s)) if text.endswith(s[:n])), default=0
        )
        return text[: len(text) - held]
