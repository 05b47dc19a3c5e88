"""Prompts of an online run in the forms that samplers, rewards and logs need."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from jalign.data.chat import ends_of
from jalign.data.convert import to_records
from jalign.data.examples import Examples
from jalign.data.records import Message
from jalign.options import DataConfig
from jalign.rewards.label import text_of
from jalign.rollout.text import continuation, decode
from jalign.run.data import tokenize_prompts

if TYPE_CHECKING:
    from jalign.data.rows import Row

LOG = logging.getLogger(__name__)

PromptRow = Mapping[str, Any] | str | Sequence[Message]
"""A prompt as Python users write it: a row with columns, a text, or the messages of a chat."""


class Prompt(NamedTuple):
    """One prompt.

    Attributes:
      ids: token ids for the policy.
      messages: for reward models, which apply their own chat template: the messages of a chat, or
        `plain_text`.
      text: for reward functions and judges: the content, with roles if there are several messages.
      plain_text: the decoded ids without special tokens.
      policy_text: the decoded ids with special tokens, as the template renders the prompt.
      row: the columns of the data.
    """

    ids: np.ndarray
    messages: str | list[Message]
    text: str
    plain_text: str
    policy_text: str
    row: Mapping[str, Any]


class PromptTable:
    """Prompts by index, parsed and decoded lazily and cached: a run reads each prompt once per
    response and reward, and often only some of the prompts.

    Args:
      examples: tokenized prompts; their extra `row` is the index into `rows`.
      rows: rows of the data, with columns under jalign's names.
      kind: kind of records that the examples were made from.
    """

    def __init__(
        self,
        examples: Examples,
        rows: Sequence[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        kind: str = "prompts",
    ):
        self.examples, self.rows, self.tokenizer, self.kind = examples, rows, tokenizer, kind
        self.names = list(dict.fromkeys(name for row in rows for name in row))
        self._prompts: dict[int, Prompt] = {}
        self._hidden: set[str] = set()

    @classmethod
    def of_rows(
        cls,
        rows: Sequence[PromptRow],
        tokenizer: PreTrainedTokenizerBase,
        data: DataConfig | None = None,
        kind: str = "prompts",
    ) -> PromptTable:
        """Build the table from rows in memory.

        Args:
          rows: rows with a column `prompt` (or of any layout with one), texts, or lists of
            messages; see `PromptRow`.
          data: limits of lengths and the chat template.
          kind: "prompts", or "supervised" if the algorithm compares with the response of the row
            (`Algorithm.data_kind`).

        >>> table = PromptTable.of_rows(["2 + 2 ="], tokenizer)  # doctest: +SKIP
        >>> table[0].text  # doctest: +SKIP
        '2 + 2 ='
        """
        plain = [as_row(row) for row in rows]
        examples = tokenize_prompts(plain, kind, data or DataConfig(), tokenizer)
        return cls(examples, plain, tokenizer, kind)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> Prompt:
        """The prompt of an index in `examples`."""
        if (prompt := self._prompts.get(i)) is not None:
            return prompt
        row = self.rows[int(self.examples.extras["row"][i])]
        ids, _ = self.examples.segments(i)
        plain_text = decode(self.tokenizer, ids)
        policy_text = decode(self.tokenizer, ids, special=True)
        # parsed again: examples hold ids, and reward models apply a chat template of their own
        messages = to_records([row], self.kind)[0][0].prompt
        if isinstance(messages, str):  # a limit may have cut the front of what the policy reads
            messages = text = plain_text
        else:
            text = text_of(messages)
        prompt = self._prompts[i] = Prompt(ids, messages, text, plain_text, policy_text, row)
        return prompt

    @cached_property
    def ends(self) -> frozenset[int]:
        """Token ids that end a response and are not in its text."""
        return ends_of(self.tokenizer)

    def decode(self, i: int, tokens: np.ndarray) -> str:
        """Decode a response to prompt i as the continuation of that prompt."""
        prompt = self[i]
        ids = [int(x) for x in prompt.ids], [int(x) for x in tokens]
        return continuation(self.tokenizer, *ids, self.ends, prompt_text=prompt.plain_text)

    def columns(
        self, indices: Sequence[int], of_response: Mapping[str, Sequence[object]] | None = None
    ) -> Mapping[str, Sequence[object]]:
        """Every column of the data with one entry per index, None if a row lacks it; and
        `policy_prompt`, unless the data has a column of this name.

        Args:
          of_response: columns about the responses. They replace data columns of the same name, with
            a warning once.
        """
        prompts, of_response = [self[i] for i in indices], dict(of_response or {})
        # a function that reads the wrong lengths would fail without a sign
        if hidden := set(of_response) & set(self.names) - self._hidden:
            self._hidden |= hidden
            LOG.warning(
                "reward functions do not see the data's %s: jalign passes a column of this name "
                "about each response; rename the data's",
                ", ".join(sorted(hidden)),
            )
        columns = {"policy_prompt": [prompt.policy_text for prompt in prompts]}
        columns |= {n: [prompt.row.get(n) for prompt in prompts] for n in self.names}
        return columns | of_response


def as_row(prompt: PromptRow) -> Row:
    """Turn a prompt into a row with columns.

    Raises:
      TypeError: not a mapping, a text, or a list of messages.
    """
    if isinstance(prompt, Mapping):
        return prompt
    messages = isinstance(prompt, Sequence) and all(isinstance(m, Mapping) for m in prompt)
    if isinstance(prompt, str) or (messages and prompt):
        return {"prompt": prompt if isinstance(prompt, str) else list(prompt)}
    raise TypeError(
        f"a prompt is a text, a list of messages or a row with columns, got {prompt!r:.80}"
    )
