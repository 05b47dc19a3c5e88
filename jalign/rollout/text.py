"""Generate text from text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from transformers import PreTrainedTokenizerBase

from jalign.rollout.decode_model import Model
from jalign.rollout.groups import respond
from jalign.rollout.sampler import Settings


@runtime_checkable
class TokenDecoder(Protocol):
    """What turns token ids into text; every transformers tokenizer does."""

    def decode(self, token_ids: Any, skip_special_tokens: bool) -> Any:
        """The text of ids."""
        ...


def generate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str | Sequence[int]],
    settings: Settings,
    key: jax.Array,
    batch_size: int = 32,
) -> list[str]:
    """Continuations of texts, K per text, consecutive (entry b*K + k).

    Args:
      model: as for `sample`.
      tokenizer: adds the leading BOS if it is configured to.
      texts: prompts, each at least one token, or their token ids.
      settings: how to sample.
      key: batches fold their number into it.
      batch_size: prompts per call; texts of similar length go together.
    """
    ids = [prompt_ids(tokenizer, text) if isinstance(text, str) else [*text] for text in texts]
    if not ids:
        return []
    prompts = [np.asarray(row, np.int32) for row in ids]
    rollout = respond(model, prompts, settings, key, batch_size=batch_size)
    of_prompt = [row for row in ids for _ in range(settings.responses)]
    return [
        continuation(tokenizer, prompt, response.tolist(), settings.eos)
        for prompt, response in zip(of_prompt, rollout.responses(), strict=True)
    ]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text to be continued: without the EOS that some tokenizers append to a text."""
    ids: list[int] = list(tokenizer(text)["input_ids"])
    eos = str(tokenizer.eos_token)
    ended = ids[-1:] == [tokenizer.eos_token_id] and not text.endswith(eos)
    return ids[:-1] if ended else ids


def decode(
    tokenizer: TokenDecoder, ids: Sequence[int] | np.ndarray, *, special: bool = False
) -> str:
    """The text of token ids, with or without special tokens."""
    return str(tokenizer.decode([int(x) for x in ids], skip_special_tokens=not special))


def continuation(
    tokenizer: TokenDecoder,
    prompt: list[int],
    response: list[int],
    ends: Collection[int] = (),
    *,
    prompt_text: str | None = None,
) -> str:
    """A response's text as a continuation of the prompt. A last token in `ends` is left out, even
    if the tokenizer does not treat it as special.

    Args:
      prompt_text: the decoded prompt without special tokens, if already available.
    """
    if response and response[-1] in ends:
        response = response[:-1]
    if prompt_text is None:
        prompt_text = decode(tokenizer, prompt)
    # Decoded together: alone, some tokenizers drop the first space of a response.
    full_text = decode(tokenizer, prompt + response)
    if full_text.startswith(prompt_text):
        return full_text[len(prompt_text) :]
    return decode(tokenizer, response)
