"""A language model small enough to travel with the package, and preference pairs for it.

About a million parameters, trained on stories that a larger story model wrote; configs/embedded has
every step of how it was made. It writes short children's stories, nothing else. The pairs are two
of its own continuations of one opening, of which the chosen one sounds more cheerful.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent
_SPLITS = ("train", "test")


def path() -> Path:
    """Folder of the model in Hugging Face's format, tokenizer included."""
    return _HERE / "model"


def pairs(split: str = "train") -> Path:
    """Preference pairs, gzip'd JSON lines with prompt, chosen, rejected and margin.

    No opening stands in both splits.

    Raises:
      ValueError: `split` is neither "train" nor "test".
    """
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}")
    return _HERE / f"pairs_{split}.jsonl.gz"
