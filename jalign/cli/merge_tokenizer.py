"""Which tokenizer, chat template and ends of a response a merged model gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jalign.data.chat import load_tokenizer
from jalign.run.policy import eos_ids


class Reading(NamedTuple):
    """How a model reads and ends texts."""

    tokenizer: Any
    ends: tuple[int, ...]

    @classmethod
    def of(cls, path: str | Path, tokenizer: Any = None) -> Reading:
        """Of a folder; `tokenizer` where a run has changed it."""
        tokenizer = load_tokenizer(path) if tokenizer is None else tokenizer
        return cls(tokenizer, eos_ids(str(path), tokenizer))

    def differs(self, other: Reading) -> list[str]:
        """In what."""
        a, b = self.tokenizer, other.tokenizer
        facts = {
            "tokens": a.get_vocab() != b.get_vocab(),
            "chat template": a.chat_template != b.chat_template,
            "ends of a response": self.ends != other.ends,
        }
        return [name for name, other_one in facts.items() if other_one]


def chosen(
    base: Reading, models: Mapping[str, Reading | None], say: Callable[[str], object]
) -> Reading:
    """That of the models where all that have one agree, else that of the base; what is lost is
    said.
    """
    known = {name: reading for name, reading in models.items() if reading is not None}
    for name, reading in known.items():
        ours, theirs = base.tokenizer.get_vocab(), reading.tokenizer.get_vocab()
        moved = [token for token in ours.keys() & theirs.keys() if ours[token] != theirs[token]]
        if moved:
            raise ValueError(
                f"the tokenizer of {name} gives {len(moved)} tokens other ids than the base's, "
                f"{moved[0]!r} for one: their embeddings cannot be merged"
            )
    if not known:
        return base
    (first, own), *rest = known.items()
    if apart := [name for name, reading in rest if reading.differs(own)]:
        say(
            f"warning: {first} and {', '.join(apart)} differ in their "
            f"{' and '.join(known[apart[0]].differs(own))}: the base's are taken"
        )
        return base
    if what := own.differs(base):
        say(f"{' and '.join(what)} of {first}: the base has others")
    return own
