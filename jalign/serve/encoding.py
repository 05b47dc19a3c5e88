"""Texts and conversations to token ids, and tokens to the texts they are reported with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jalign.data.chat import Template
from jalign.rollout.text import decode, prompt_ids
from jalign.run.policy import Policy

if TYPE_CHECKING:
    from jalign.data.messages import Tools
    from jalign.data.records import Message


class Encoding:
    """The tokenizer of a model and its chat template, which is probed once."""

    def __init__(self, policy: Policy):
        self.tokenizer = policy.tokenizer
        self._texts: dict[int, str] = {}
        self._special = frozenset(policy.tokenizer.all_special_ids)

    @cached_property
    def template(self) -> Template:
        """The chat template.

        Raises:
          ValueError: the tokenizer has none.
        """
        if not self.tokenizer.chat_template:
            raise ValueError(
                "the model has no chat template: start the server with --template, or ask for "
                "completions of texts"
            )
        return Template.of(self.tokenizer)

    def text(self, text: str, *, special: bool = True) -> tuple[int, ...]:
        """Ids of a text to be continued.

        Args:
          special: begin with the BOS, where the tokenizer does so by default.
        """
        if special:
            return tuple(prompt_ids(self.tokenizer, text))
        ids: Any = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(ids)

    def chat(self, messages: Sequence[Message], tools: Tools | None = None) -> tuple[int, ...]:
        """Ids of a conversation that the assistant is to continue.

        Raises:
          ValueError: no template, or one that refuses these messages.
        """
        text = self.template.render(messages, tools, open_turn=True)
        # The template writes the BOS itself; the tokenizer would add a second one.
        ids: Any = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids without special tokens."""
        return decode(self.tokenizer, ids)

    def length(self, token: int) -> int:
        """Characters that a token adds to a text, in which special tokens are not written."""
        return 0 if token in self._special else len(self.token_text(token))

    def token_text(self, token: int) -> str:
        """The text of a token inside a text, special ones included."""
        if token not in self._texts:
            # After another token: alone, some tokenizers drop the space that it begins with.
            alone = decode(self.tokenizer, [token], special=True)
            twice = decode(self.tokenizer, [token, token], special=True)
            follows = twice.startswith(alone)
            self._texts[token] = twice[len(alone) :] if follows else alone
        return self._texts[token]
