"""Infer the split of a file from the words of its path.

The keywords are those of `datasets.data_files`, with two rules more, so that rows of a test split
are never trained on by accident: a longer name is a split of its own (`train_sft` is not `train`),
and a keyword in the middle of a name counts only where a sibling differs in nothing else
(`x_train_v`, `x_test_v`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

from jalign.signatures import nearest

FAMILIES = {
    "train": ("train", "training", "trainset"),
    "validation": ("validation", "valid", "dev", "val", "devset", "valset"),
    "test": ("test", "testing", "testset", "eval", "evaluation", "evalset", "heldout", "holdout"),
}
"""Purpose of a split -> the words that name it."""

_FAMILY = {word: family for family, words in FAMILIES.items() for word in words}
_BARE = {"eval": "eval", "evaluation": "eval", "evalset": "eval"}  # beside a test split another one
_FILLERS = {
    "data", "dataset", "set", "split", "file", "files", "rows", "samples", "examples", "of",
    "part", "shard", "chunk", "batch", "rank", "v", "hf",
    "jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow", "gz",
}  # fmt: skip
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*")


def words_of(name: str) -> list[str]:
    """The informative words of a name: no numbers, no `data`, `part`, `shard`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", _SHARD.sub("", name))  # HelpfulTest
    words = re.findall(r"[a-z]+", re.sub(r"h[eo]ld[-_. ]out", "heldout", apart.lower()))
    return [w for w in words if w not in _FILLERS]


def family(split: str) -> str | None:
    """train, validation or test, by the first keyword of a split's name; None where it has none."""
    return next((_FAMILY[w] for w in words_of(split) if w in _FAMILY), None)


def splits_of(paths: Sequence[PurePath]) -> dict[PurePath, str | None]:
    """The split of each path, None where no part of the path names one.

    Args:
      paths: relative to the folder of the data set.

    Raises:
      ValueError: a path that names two splits, one of them for training.
    """
    patterns: dict[tuple[str, ...], set[str]] = {}
    for path in paths:
        for words in _parts(path):
            for i, word in enumerate(words):
                if word in _FAMILY:
                    patterns.setdefault((*words[:i], "", *words[i + 1 :]), set()).add(_FAMILY[word])
    return {path: _split_of(path, patterns) for path in paths}


def pick(there: Iterable[str], wanted: str, where: str) -> str:
    """The split that `wanted` refers to: that of this name, or the only one of its family.

    Raises:
      ValueError: none, or several that would be mixed.
    """
    names = sorted(set(there))
    exact = [n for n in names if n == wanted or _name(words_of(n)) == _name(words_of(wanted))]
    if exact:
        return exact[0]
    bare = len(words_of(wanted)) == 1 and family(wanted)
    same = [n for n in names if bare and family(n) == family(wanted)]
    if len(same) == 1:
        return same[0]
    listed = ", ".join(names)
    if same:
        raise ValueError(
            f"{where} has {len(same)} splits for {wanted!r}, which are not mixed: "
            f"{', '.join(same)}; name one: data.split (training) or data.eval_split (held out)"
        )
    raise ValueError(
        f"{where} has no split {wanted!r}{nearest(wanted, names)}; there is: {listed}"
        "; data.split names the one to train on, data.eval_split the held-out one"
    )


def held_out(there: Iterable[str], train: str, wanted: str = "test") -> str | None:
    """The default split for evaluation: `test_prefs` beside `train_prefs`, else the match of
    `wanted`, else the validation split; None if no split matches, or several.
    """
    names = set(there) - {train}
    rest = words_of(train)[1:]
    for name in dict.fromkeys((wanted, "test", "validation")):
        own = [n for n in names if rest and family(n) == family(name) and words_of(n)[1:] == rest]
        if own:
            return own[0]
        try:
            split = pick(names, name, "")
        except ValueError:
            continue
        if family(split) != "train":
            return split
    return None


def _parts(path: PurePath) -> list[list[str]]:
    return [words_of(part) for part in path.parts]


def _split_of(path: PurePath, patterns: Mapping[tuple[str, ...], set[str]]) -> str | None:
    names = [name for words in _parts(path) if (name := _named(words, patterns))]
    families = {family(name) for name in names}
    if len(families) > 1 and "train" in families:
        raise ValueError(
            f"{path} is of several splits by its name: {', '.join(names)}; name the files to train "
            "on in data.train"
        )
    return max(reversed(names), key=len) if names else None


def _named(words: list[str], patterns: Mapping[tuple[str, ...], set[str]]) -> str | None:
    """The split that one part of a path names."""
    at = [i for i, word in enumerate(words) if word in _FAMILY]
    families = {_FAMILY[words[i]] for i in at}
    if not at or (len(families) > 1 and "train" in families):
        return None  # train_test_mixed
    first, last = at[0], at[-1]
    if first == 0:
        return _name(words)
    if last == len(words) - 1 or len(patterns[*words[:first], "", *words[first + 1 :]]) > 1:
        return _name([words[last]])
    return None


def _name(words: Sequence[str]) -> str:
    """`train_sft`; a keyword alone by the name of its family."""
    if len(words) == 1 and words[0] in _FAMILY:
        return _BARE.get(words[0], _FAMILY[words[0]])
    return "_".join(words)
