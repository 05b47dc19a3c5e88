"""Tokenize text in parts such that the ids equal those of the full text.

Tokenizers normalize the text behind an added token (special tokens are added ones) separately:
SentencePiece inserts a space, and the token may absorb a line break. A continuation is therefore
encoded behind an anchor, the text before it from the last added token on, or a line break if there
is none nearby. The ids of the anchor are then removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from jalign.data.joint import LETTERS

ANCHOR = "\n"  # absorbs the space that SentencePiece inserts before a text
NEARBY = 80  # characters before a text in which an added token is looked for


class Encoder:
    """Tokenize texts at the start of a sequence, and texts that continue one.

    Attributes:
      bos: id that the tokenizer puts first by default, or None.
      eos: id of the EOS token.
      special: ids of the special tokens.
      control: matches them in a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        if tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no EOS token, so that a model could never learn to stop"
            )
        self.tokenizer = tokenizer
        self.eos = self.id(tokenizer.eos_token)
        self.bos = default_bos(tokenizer)
        self._anchor = self.starts([ANCHOR])[0]
        # SentencePiece inserts a space before a text; inside a sequence that is an extra token.
        self._prefixes = (
            self.starts(["a"])[0] != self.starts([ANCHOR + "a"])[0][len(self._anchor) :]
        )
        by_id = cast(Any, tokenizer).added_tokens_decoder
        added = by_id.values()
        self.special = frozenset(i for i, t in by_id.items() if t.special)
        self._added = _any_of(t.content for t in added)
        self.control = _any_of(t.content for t in added if t.special)
        self._strips = any(t.rstrip for t in added)

    def id(self, token: Any) -> int:
        """Id of a token."""
        return cast(int, self.tokenizer.convert_tokens_to_ids(token))

    def starts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts that begin a sequence, without BOS."""
        if not texts:
            return []
        return self.tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]

    def continuations(
        self, texts: Sequence[str], before: Sequence[str] | None = None
    ) -> list[list[int]]:
        """Ids of texts that follow other text.

        Args:
          before: the text before each; None: any text.
        """
        if not (self._prefixes or (self._strips and before)):
            return self.starts(texts)
        anchors = [self._anchor_of(b) for b in before] if before else [ANCHOR] * len(texts)
        distinct = list(dict.fromkeys(anchors))
        heads = dict(zip(distinct, self.starts(distinct), strict=True))
        ids = self.starts([anchor + text for anchor, text in zip(anchors, texts, strict=True)])
        # An anchor that merged with the text cannot be cut off: such a text is encoded again.
        lengths = [len(heads[anchor]) for anchor in anchors]
        merged = [i for i, x in enumerate(ids) if x[: lengths[i]] != heads[anchors[i]]]
        # Second try behind a line break; a text that merges with that, too, is encoded alone.
        again = self.continuations if before else self.starts
        plain = dict(zip(merged, again([texts[i] for i in merged]), strict=True))
        return [plain.get(i, x[n:]) for i, (x, n) in enumerate(zip(ids, lengths, strict=True))]

    def _anchor_of(self, before: str) -> str:
        """The text before, from its last added token on, or a line break."""
        tail = before[-NEARBY:]
        starts = [match.start() for match in self._added.finditer(tail)]
        return tail[starts[-1] :] if starts else ANCHOR

    @cached_property
    def answers(self) -> tuple[str, dict[str, str]]:
        """End of a prompt before an answer letter, and the letters as one token each, with a
        leading space if the tokenizer has such tokens.
        """
        for space in (" ", ""):
            ids_of_letters = self.continuations([space + letter for letter in LETTERS])
            tokens = {ids[0] for ids in ids_of_letters if len(ids) == 1}
            # Letters that the tokenizer does not know would all be this one token.
            tokens.discard(cast(int, self.tokenizer.unk_token_id))
            if len(tokens) == len(LETTERS):
                return "" if space else " ", {letter: space + letter for letter in LETTERS}
        shown = self.continuations([" " + letter for letter in LETTERS])
        raise ValueError(
            f"joint data needs answers {' and '.join(LETTERS)} of one token each; this tokenizer "
            f"makes of them {[self.tokenizer.convert_ids_to_tokens(ids) for ids in shown]}"
        )


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the texts, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def default_bos(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Id of the BOS that the tokenizer puts before a text by default, or None."""
    first: int = tokenizer("a")["input_ids"][0]
    return first if first == tokenizer.bos_token_id else None
