"""A language model small enough to travel with the package, and data of its own making.

About a million parameters, trained on stories that a larger story model wrote; configs/embedded has
every step of how it was made. It writes short children's stories, nothing else. The pairs are two
of its own continuations of one opening, of which the chosen one sounds more cheerful; the lists are
four, rated by how cheerful they sound; the steps are sentences, judged one by one. No opening
stands in a training and in a test split, whichever data they are of.
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

    Raises:
      ValueError: `split` is neither "train" nor "test".
    """
    return _file("pairs", split)


def lists(split: str = "train") -> Path:
    """Rated lists, gzip'd JSON lines with prompt, four responses and their ratings in [-1, 1].

    Raises:
      ValueError: `split` is neither "train" nor "test".
    """
    return _file("lists", split)


def rated(split: str = "train") -> Path:
    """Rated responses, gzip'd JSON lines with prompt, completion, rating in [-1, 1] and attributes
    (the shares of positive and negative words).

    Raises:
      ValueError: `split` is neither "train" nor "test".
    """
    return _file("rated", split)


def steps(split: str = "train") -> Path:
    """Stories in steps, gzip'd JSON lines with prompt, completions (sentences) and labels, which
    are true where the sentence does not sound negative.

    Raises:
      ValueError: `split` is neither "train" nor "test".
    """
    return _file("stepwise", split)


def _file(what: str, split: str) -> Path:
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}")
    return _HERE / f"{what}_{split}.jsonl.gz"
