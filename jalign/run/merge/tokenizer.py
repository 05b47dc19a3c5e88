"""Select tokenizer, chat template and end tokens of a merged model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from jalign.data.chat import load_tokenizer
from jalign.run.policy import eos_ids


class TextFormat(NamedTuple):
    """Tokenizer and end tokens of a model."""

    tokenizer: PreTrainedTokenizerBase
    eos: tuple[int, ...]

    @classmethod
    def of(cls, path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> TextFormat:
        """The format of a model folder; `tokenizer` replaces its tokenizer."""
        tokenizer = load_tokenizer(path) if tokenizer is None else tokenizer
        return cls(tokenizer, eos_ids(str(path), tokenizer))

    def differences(self, other: TextFormat) -> list[str]:
        """Names of the properties that differ."""
        a, b = self.tokenizer, other.tokenizer
        facts = {
            "tokens": a.get_vocab() != b.get_vocab(),
            "chat template": a.chat_template != b.chat_template,
            "ends of a response": self.eos != other.eos,
        }
        return [name for name, differs in facts.items() if differs]


def select_format(
    base: TextFormat, models: Mapping[str, TextFormat | None], say: Callable[[str], object]
) -> TextFormat:
    """The format that all models share, else the base's; `say` reports what is lost.

    Args:
      models: name -> format; None for a model without a tokenizer.

    Raises:
      ValueError: token ids of a model differ from the base, so that embeddings do not match.
    """
    formats = {name: x for name, x in models.items() if x is not None}
    for name, model_format in formats.items():
        _check_ids(name, model_format, base)
    if not formats:
        return base
    (first, candidate), *rest = formats.items()
    if others := [name for name, x in rest if x.differences(candidate)]:
        say(
            f"warning: {first} and {', '.join(others)} differ in their "
            f"{' and '.join(formats[others[0]].differences(candidate))}: the base's are taken"
        )
        return base
    if differences := candidate.differences(base):
        say(f"{' and '.join(differences)} of {first}: the base has others")
    return candidate


def _check_ids(name: str, model: TextFormat, base: TextFormat) -> None:
    ours, theirs = base.tokenizer.get_vocab(), model.tokenizer.get_vocab()
    # tokens that one side lacks are no conflict; a moved id would add the rows of two tokens
    moved = [token for token in ours.keys() & theirs.keys() if ours[token] != theirs[token]]
    if moved:
        raise ValueError(
            f"the tokenizer of {name} gives {len(moved)} tokens other ids than the base's, "
            f"{moved[0]!r} for one: their embeddings cannot be merged"
        )
