"""Encode prompts: plain texts as they are, or as a user message in the chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from jalign.data.chat import Template
from jalign.rollout.text import prompt_ids

Row = dict[str, Any]
"""A row with a `prompt` (text or messages) and optionally `tools`."""


def as_chats(
    rows: Sequence[Row],
    typed: int,
    tokenizer: PreTrainedTokenizerBase,
    chat: bool | None,
    template: str | None,
) -> tuple[list[Row], str]:
    """Turn texts into user messages where the chat template applies; return the rows and a note
    that tells the user so.

    Args:
      rows: rows with a prompt; the first `typed` were typed, the others come from a file.
      chat: whether texts go into the template; None: typed texts do if there is a template, and all
        texts do if `template` was given.
      template: the template given on the command line.
    """
    texts = [isinstance(row["prompt"], str) for row in rows]
    if chat and any(texts) and not tokenizer.chat_template:
        raise ValueError("--chat needs a chat template and the tokenizer has none: give --template")
    # an option that cannot apply is an error, never ignored
    if template and chat is False and all(texts):
        raise ValueError(f"--template {template} cannot apply: the prompts are texts, not messages")
    every = bool(template) if chat is None else chat
    # who types a text asks the model; lines of a file may be openings to be continued
    first = bool(tokenizer.chat_template) and chat is not False
    asks = [text and (every or (first and i < typed)) for i, text in enumerate(texts)]
    chats = [
        {**row, "prompt": [{"role": "user", "content": row["prompt"]}]} if ask else dict(row)
        for row, ask in zip(rows, asks, strict=True)
    ]
    if chat is None and any(asks):
        return (
            chats,
            "texts are asked by the chat template; --chat false continues them as they are",
        )
    if chat is None and any(texts) and tokenizer.chat_template:
        return chats, "texts of --file are continued as they are; --chat asks by the chat template"
    return chats, ""


def encode_prompts(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of the prompts: texts by the tokenizer, messages by its chat template."""
    chat = not all(isinstance(row["prompt"], str) for row in rows)
    template = Template.of(tokenizer) if chat else None

    def encode(row: Row) -> list[int]:
        if template is None or isinstance(row["prompt"], str):
            # without the EOS that some tokenizers append, after which a model begins a new text
            return prompt_ids(tokenizer, row["prompt"])
        text = template.render(row["prompt"], row.get("tools"), open_turn=True)
        # The template writes the BOS itself; the tokenizer would add a second one.
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return [encode(row) for row in rows]
