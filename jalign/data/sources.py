"""Rows from files, folders and the hub; weighted mixtures; held-out rows."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jalign.data.convert import SOURCE_COLUMN
from jalign.data.kinds import Row, nearest
from jalign.data.records import Record, prompt_key

Item = TypeVar("Item", Row, Record)
SPLITS = ("train", "test", "validation", "valid", "dev", "eval")


def read(source: str | Path, split: str = "train") -> list[dict[str, Any]]:
    """Every row of a source.

    Args:
      source: a file (.jsonl, .json, .csv, each also .gz; .parquet, .arrow), a folder saved by
        `datasets.save_to_disk`, a folder of such files, or a name on the hub, `owner/name` or
        `owner/name:config`. Of files that are named after splits only those of `split` are read.
      split: which split of a folder or hub data set.

    Raises:
      ValueError: naming the file and, where there are lines, the line: nothing in it, bytes that
        are not UTF-8, something that is not a JSON object, columns other than the first row's.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path, split)
    if path.is_file():
        return _read_file(path)
    name = str(source)
    if _suffix(path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(_missing(path))
    return _from_hub(name, split)


def mixture(parts: Sequence[tuple[str, float]], split: str = "train") -> list[dict[str, Any]]:
    """Rows of several sources, weighted, each with its source in the column `_source`.

    A weight says how often a source is seen in one epoch of the mixture: 1 is every row once, 2
    every row twice, 0.25 a quarter of the rows, 2.25 every row twice and a quarter of them a third
    time. The part of a source of n rows is the round(fraction * n) rows with the smallest SHA-256
    of their number, hence the same in every run. Sources follow one another in the order given.

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
        rows = read(name, split)
        whole, part = int(weight), round((weight - int(weight)) * len(rows))
        some = sorted(sorted(range(len(rows)), key=lambda i: _hash(str(i)))[:part])
        marked = [row | {SOURCE_COLUMN: str(name)} for row in rows]
        out += marked * whole + [marked[i] for i in some]
    return out


def split(
    rows: Sequence[Item], holdout: float | int = 0.05, *, seed: int = 0
) -> tuple[list[Item], list[Item]]:
    """Rows (or records) to train on, and rows held out, by the hash of their prompt.

    The same prompt is never on both sides. A fraction holds out prompts whose hash is below it, so
    a row stays on its side when others are added. A count takes prompts in the order of their hash
    until at least that many rows are held out.

    Args:
      holdout: fraction in (0, 1), or a number of rows.
      seed: another seed, another choice.

    Raises:
      ValueError: a holdout that leaves nothing on one side.
    """
    if not holdout > 0 or (isinstance(holdout, float) and holdout >= 1) or holdout >= len(rows):
        raise ValueError(f"holdout must be in (0, 1) or below the {len(rows)} rows, got {holdout}")
    hashes = [_hash(f"{seed} {prompt_key(row)}") for row in rows]
    counted = isinstance(holdout, int)
    limit = sorted(hashes)[holdout - 1] + 1 if counted else holdout * 2.0**64
    held = [row for row, h in zip(rows, hashes, strict=True) if h < limit]
    train = [row for row, h in zip(rows, hashes, strict=True) if h >= limit]
    if not train or not held:
        raise ValueError(f"holdout {holdout} of {len(rows)} rows leaves one side empty")
    return train, held


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _suffix(path: Path) -> str:
    """The known ending of a file name without .gz, or nothing."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in _READERS else ""


def _missing(path: Path) -> str:
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    place = "" if siblings or path.parent.is_dir() else f" (nor the folder {path.parent})"
    return f"no file {path}{place}{nearest(path.name, siblings)}"


def _from_hub(name: str, split: str) -> list[dict[str, Any]]:
    import datasets  # imported late: it takes seconds

    name, _, config = name.partition(":")
    try:
        data = datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no file here{nearest(name, (p.name for p in Path().iterdir()))}"
            f" and could not be loaded from the hub: {error}"
        ) from error
    return _checked(data, name)


def _read_folder(folder: Path, split: str) -> list[dict[str, Any]]:
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        import datasets

        data = datasets.load_from_disk(str(folder))
        if isinstance(data, datasets.DatasetDict):
            splits = [str(name) for name in data]
            if split not in splits:
                there = ", ".join(splits)
                near = nearest(split, splits)
                raise ValueError(f"{folder} has no split {split!r}{near}; there is: {there}")
            data = data[split]
        return _checked(data, str(folder))
    files = sorted(p for p in folder.rglob("*") if p.is_file() and _suffix(p))
    if not files:
        raise ValueError(f"no {', '.join(_READERS)} file in the folder {folder}")
    of_split = {
        p: next((s for s in SPLITS if re.match(rf"{s}\b|{s}_", p.name)), None) for p in files
    }
    if any(of_split.values()):
        files = [p for p in files if of_split[p] == split]
        if not files:
            there = sorted({s for s in of_split.values() if s})
            raise ValueError(
                f"{folder} has no file of the split {split!r}; there is: {', '.join(there)}"
            )
    rows = [row for p in files for row in _read_file(p)]
    return _checked(rows, str(folder))


def _read_file(path: Path) -> list[dict[str, Any]]:
    if not (suffix := _suffix(path)):
        raise ValueError(
            f"{path}: unknown kind of file; there is: {', '.join(_READERS)}, .gz of them"
        )
    rows = _READERS[suffix](path)
    if not rows:
        raise ValueError(f"{path} is empty")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, the first is 1."""
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield number, text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error
    except (gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path}, after line {number}: a damaged gzip file ({error})") from error


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows, places = [], []
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error.msg}): {line:.60}"
            ) from error
        places.append(f"line {number}")
    return _checked(rows, str(path), places)


def _json(path: Path) -> list[dict[str, Any]]:
    """A JSON array of objects; a file that does not start with `[` is read as JSON Lines."""
    numbered = _lines(path)
    _, first = next(numbered, (0, ""))
    if not first.lstrip().startswith("["):
        return _json_lines(path)
    try:
        rows = json.loads("\n".join([first, *(line for _, line in numbered)]))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    return _checked(rows, str(path))


def _csv(path: Path) -> list[dict[str, Any]]:
    text = io.StringIO("\n".join(line for _, line in _lines(path)), newline="")
    reader = csv.DictReader(text, strict=True)
    rows = []
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"{path}, line {reader.line_num}: not as many columns as the header")
        rows.append(row)
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def _arrow(path: Path) -> list[dict[str, Any]]:
    import datasets

    return _checked(datasets.Dataset.from_file(str(path)), str(path))


_READERS = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}


def _checked(rows: Iterable[Any], where: str, places: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows that are all objects with the columns of the first."""
    rows = list(rows)
    for i, row in enumerate(rows):
        place = f"{where}, {places[i] if places else f'row {i}'}"
        if not isinstance(row, dict):
            raise ValueError(f"{place}: a row must be a JSON object, got {type(row).__name__}")
        if row.keys() != rows[0].keys():
            more, less = sorted(row.keys() - rows[0].keys()), sorted(rows[0].keys() - row.keys())
            differs = [f"has {', '.join(more)}"] * bool(more) + [f"lacks {', '.join(less)}"] * bool(
                less
            )
            raise ValueError(f"{place}: other columns than the first row: {' and '.join(differs)}")
    return rows
