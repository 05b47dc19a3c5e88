"""Rows from files, folders and the hub; weighted mixtures; held-out rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jalign.data import splits
from jalign.data.files import from_table, known_endings, read_file, suffix_of
from jalign.data.parsing import ERRORS, SOURCE_COLUMN, RowError, sources_of
from jalign.data.records import NothingToLearn, Record, prompt_key
from jalign.data.rows import Row, SourceRow, place_of, replaced
from jalign.signatures import nearest

Item = TypeVar("Item", Row, Record)
DESCRIPTIONS = (
    "config.json", "dataset_info.json", "dataset_infos.json", "metadata.json", "package.json",
    "README.json", "state.json", "dataset_dict.json",
)  # fmt: skip
"""Names of files with metadata, not rows."""


def read(
    source: str | Path, split: str = "train", *, bad_rows: str = "error"
) -> list[dict[str, object]]:
    """Every row of a source with its location (`rows.SourceRow`).

    Args:
      source: a file (.jsonl, .json, .csv, .tsv, each also .gz; .parquet, .arrow), a folder saved by
        `datasets.save_to_disk`, a folder of such files, or a name on the hub, `owner/name` or
        `owner/name:config`. Of files whose paths name splits only those of `split` are read.
      split: which split of a folder or hub data set; `train` also means the only one for training
        (`train_sft`).
      bad_rows: "error", or "drop": an invalid line becomes an empty row with an `error`.

    Raises:
      ValueError: naming the file and, where there are lines, the line: nothing in it, bytes that
        are not UTF-8, something that is not a JSON object; a split that is not there, or several.
    """
    path, drop = Path(source).expanduser(), bad_rows == "drop"
    if path.is_dir():
        return [*_read_folder(path, split, drop)]
    if path.is_file():
        return [*read_file(path, split, drop=drop)]
    if _no_name(source):
        raise ValueError(_missing(path))
    return [*_from_hub(str(source), split)]


def split_names(source: str | Path) -> list[str]:
    """The splits of a folder or of a data set on the hub; empty for a file or if unknown."""
    path = Path(source).expanduser()
    if path.is_dir() and (path / "dataset_dict.json").exists():
        return list(json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"])
    if path.is_dir() and not _saved(path):
        return sorted({name for name in _by_file(path).values() if name})
    if path.exists() or _no_name(source):
        return []
    return list(_hub_splits(str(source)))


@cache
def _hub_splits(source: str) -> tuple[str, ...]:
    import datasets

    name, _, config = source.partition(":")
    try:
        return tuple(map(str, datasets.get_dataset_split_names(name, config or None)))
    except Exception:  # no connection or no such name: reading raises the error
        return ()


def mixture(
    parts: Sequence[tuple[str, float]], split: str = "train", *, bad_rows: str = "error"
) -> list[dict[str, object]]:
    """Rows of several sources, weighted, each with its source in the column `_source`.

    A weight is the number of times that a source is seen in one epoch of the mixture: 1 is every
    row once, 0.25 a quarter of the rows, 2.25 every row twice and a quarter of them a third time.
    A fraction of n rows is the round(fraction * n) rows with the smallest SHA-256 of their index,
    hence the same in every run. Sources are concatenated in order.

    Raises:
      ValueError: a weight that is not positive, or a source named twice.
    """
    names = [str(name) for name, _ in parts]
    out = []
    for name, weight in parts:
        if not weight > 0:
            raise ValueError(f"the weight of {name} must be above 0, got {weight}")
        if names.count(str(name)) > 1:
            raise ValueError(f"{name} is in the mixture twice; give it one weight")
        rows = read(name, split, bad_rows=bad_rows)
        copies, part = int(weight), round((weight - int(weight)) * len(rows))
        some = sorted(sorted(range(len(rows)), key=lambda i: _hash(str(i)))[:part])
        marked = [replaced(row, {**row, SOURCE_COLUMN: str(name)}) for row in rows]
        out += marked * copies + [marked[i] for i in some]
    return out


def split(
    rows: Sequence[Item],
    holdout: float | int = 0.05,
    *,
    seed: int = 0,
    wanted: str | None = None,
    bad_rows: str = "error",
) -> tuple[list[Item], list[Item]]:
    """Rows (or records) to train on, and rows held out, by the hash of their prompt.

    The same prompt is never on both sides. A fraction holds out prompts whose hash is below it, so
    a row stays on its side when others are added. A count takes prompts in the order of their hash
    until at least that many rows are held out.

    Args:
      holdout: fraction in (0, 1), or a number of rows.
      seed: of the hash, hence of the choice.
      wanted: the kind of record that rows will be read as; None: what their columns make.
      bad_rows: a row that does not parse is an "error", or stays on the training side ("drop"),
        where `to_records` counts it.

    Raises:
      ValueError: a holdout that leaves nothing on one side, a row that does not parse.
    """
    if not holdout > 0 or (isinstance(holdout, float) and holdout >= 1) or holdout >= len(rows):
        raise ValueError(f"holdout must be in (0, 1) or below the {len(rows)} rows, got {holdout}")
    # 2^64 is above every hash: a row without a key stays on the training side.
    hashes = [_hash(f"{seed} {key}") if key else 2**64 for key in _keys(rows, wanted, bad_rows)]
    counted = isinstance(holdout, int)
    limit = sorted(hashes)[holdout - 1] + 1 if counted else holdout * 2.0**64
    held = [row for row, h in zip(rows, hashes, strict=True) if h < limit]
    train = [row for row, h in zip(rows, hashes, strict=True) if h >= limit]
    if not train or not held:
        raise ValueError(f"holdout {holdout} of {len(rows)} rows leaves one side empty")
    return train, held


def _keys(items: Sequence[Any], wanted: str | None, bad_rows: str) -> Iterator[str]:
    """The prompt key of each item; "" for one that does not parse."""
    rows = [item for item in items if not isinstance(item, Record)]
    kinds = {s.name: s.kind for s in sources_of(rows, wanted)} if wanted else {}
    for i, item in enumerate(items):
        try:
            record = isinstance(item, Record)
            kind = None if record else kinds.get(item.get(SOURCE_COLUMN, ""))
            yield prompt_key(item, kind) or " "
        except ERRORS as error:
            assert not isinstance(item, Record)
            if bad_rows == "error" and not isinstance(error, NothingToLearn):
                raise RowError(error, place_of(item, i)) from error
            yield ""


def _hash(text: str) -> int:
    # surrogatepass: a row with half a character is refused later, with its place.
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])


def _no_name(source: str | Path) -> bool:
    """Whether this is a path, not a name on the hub."""
    # A name on the hub has one slash at most.
    name = str(source)
    return bool(suffix_of(Path(name))) or name.startswith((".", "/", "~")) or name.count("/") > 1


def _missing(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    place = "" if siblings or path.parent.is_dir() else f" (nor the folder {path.parent})"
    return f"no file {path}{place}{nearest(path.name, siblings)}"


def _from_hub(name: str, split: str) -> list[SourceRow]:
    import datasets  # imported late: it takes seconds

    name, _, config = name.partition(":")
    try:
        data = _loaded(name, config or None, split)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no file here{nearest(name, (p.name for p in Path().iterdir()))}"
            f" and could not be loaded from the hub: {error}"
        ) from error
    assert isinstance(data, datasets.Dataset)
    return from_table(data, name)


def _loaded(name: str, config: str | None, split: str) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, config, split=split)
    except ValueError as error:
        # datasets raises ValueError for many reasons; only the text tells a missing split.
        if "split" not in str(error).lower():
            raise
        there = datasets.get_dataset_split_names(name, config)
        return datasets.load_dataset(name, config, split=splits.pick(there, split, name))


def _saved(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()


def _read_folder(folder: Path, split: str, drop: bool) -> list[SourceRow]:
    if _saved(folder):
        import datasets

        data = datasets.load_from_disk(str(folder))
        if isinstance(data, datasets.DatasetDict):
            data = data[splits.pick(map(str, data), split, str(folder))]
        return from_table(data, str(folder))
    files = files_of(folder, split)
    return [row for path in files for row in read_file(path, split, drop=drop)]


def files_of(folder: Path, split: str) -> list[Path]:
    """The files of a split, in the order of their paths; all where no path names a split.

    Raises:
      ValueError: no file, no such split, several splits that would be mixed, or files whose
        split is unclear.
    """
    by_file = _by_file(folder)
    names = {name for name in by_file.values() if name}
    plain = [path for path, name in by_file.items() if not name]
    if not names:
        return plain
    for_training = splits.family(split) == "train"
    if for_training and plain and not any(splits.family(n) == "train" for n in names):
        return plain  # files that no split name marks as test data
    picked = splits.pick(names, split, str(folder))
    if for_training and plain:
        raise ValueError(
            f"{folder}: {plain[0].relative_to(folder)} (one of {len(plain)} such files) names no "
            f"split, beside {', '.join(sorted(names))}; name the files to train on in data.train"
        )
    return [path for path, name in by_file.items() if name == picked]


def _by_file(folder: Path) -> dict[Path, str | None]:
    """Data files of a folder -> their split, without hidden files and metadata."""
    files = [p.relative_to(folder) for p in sorted(folder.rglob("*")) if p.is_file()]
    files = [
        p
        for p in files
        if suffix_of(p)
        and p.name not in DESCRIPTIONS
        and not any(part.startswith((".", "__")) for part in p.parts)
    ]
    if not files:
        raise ValueError(f"no {known_endings()} file in the folder {folder}")
    return {folder / path: name for path, name in splits.splits_of(files).items()}
