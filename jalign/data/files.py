"""Read the rows of a file, each with its location."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from jalign.data import splits
from jalign.data.rows import SourceRow

CELL_LIMIT = 2**31 - 1  # characters; the csv module's own is 131072, less than a long document
DELIMITERS = ",;\t"
WRAPPERS = ("data", "rows", "examples", "instances", "items", "records")
"""Keys under which a JSON object keeps its rows."""


def suffix_of(path: Path) -> str:
    """The ending of a file name without .gz if it can be read, else ""."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    return suffix if suffix in READERS else ""


def known_endings() -> str:
    """The endings that can be read, for messages."""
    return ", ".join(READERS)


def read_file(path: Path, split: str = "train", *, drop: bool = False) -> list[SourceRow]:
    """Every row of a file.

    Args:
      split: of a JSON object with rows by split.
      drop: an invalid line becomes an empty row with an `error`, instead of raising.

    Raises:
      ValueError: an unknown ending, an empty or damaged file, bytes that are not UTF-8, a value
        that is not a JSON object; names the file and the line.
    """
    suffix = suffix_of(path)
    if not suffix:
        raise ValueError(f"{path}: unknown kind of file; there is: {known_endings()}, .gz of them")
    if suffix in _BY_COLUMNS and path.name.endswith(".gz"):
        raise ValueError(f"{path}: {suffix} files are compressed inside; unpack the .gz")
    rows = READERS[suffix](path, split)
    if not rows:
        raise ValueError(f"{path} is empty")
    for row in () if drop else rows:
        if row.error:
            place = f"{path}, line {row.line}" if row.line else row.place
            raise ValueError(f"{place}: {row.error}")
    return rows


def from_table(rows: Iterable[object], where: str) -> list[SourceRow]:
    """Rows of a table, without line numbers."""
    return [SourceRow(value, where=where, number=i) for i, value in enumerate(rows)]


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines, the first is 1."""
    opener = gzip.open if path.name.endswith(".gz") else open
    number = 0
    try:
        with opener(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                yield number, raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}, after line {number}: a damaged gzip file ({error})") from error


def _text(path: Path) -> str:
    return "".join(_decoded(raw, path, number) for number, raw in _lines(path))


def _decoded(raw: bytes, path: Path, number: int) -> str:
    try:
        # Windows programs put a byte order mark at the start of a file.
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error


def _json_lines(path: Path, split: str) -> list[SourceRow]:
    rows: list[SourceRow] = []
    for number, raw in _lines(path):
        at, line = {"where": str(path), "number": len(rows), "line": number}, ""
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if not rows and line.startswith("["):
                return _json(path, split)  # an array under the name of lines
            if line:
                rows.append(SourceRow(json.loads(line), **at))
        except UnicodeDecodeError as error:
            rows.append(SourceRow(**at, error=f"not UTF-8 ({error.reason})"))
        except json.JSONDecodeError as error:
            rows.append(SourceRow(**at, error=f"not JSON ({error.msg}): {line:.60}"))
        except RecursionError:
            rows.append(SourceRow(**at, error="not JSON (nested too deeply)"))
    return rows


def _json(path: Path, split: str) -> list[SourceRow]:
    """An array of objects, or an object that contains one; anything else is read as JSON Lines."""
    first = next((raw for _, raw in _lines(path) if raw.strip()), b"").removeprefix(b"\xef\xbb\xbf")
    if first.lstrip()[:1] not in (b"[", b"{"):
        return _json_lines(path, split)
    try:
        value = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        if first.lstrip()[:1] == b"{":
            return _json_lines(path, split)
        raise ValueError(f"{path}: not JSON ({error})") from error
    return from_table(_unwrapped(value, path, split), str(path))


def _unwrapped(value: Any, path: Path, split: str) -> list[Any]:
    if isinstance(value, list):
        return value
    inside = {k: v for k, v in value.items() if isinstance(v, list) and v and _objects(v)}
    by_split = {k for k in inside if splits.family(k)}
    # Only where all lists are splits: else one of them is a column with such a name.
    if by_split and len(by_split) == len(inside):
        return inside[splits.pick(by_split, split, str(path))]
    wrapped = [k for k in inside if k in WRAPPERS] or (list(inside) if len(value) == 1 else [])
    return inside[wrapped[0]] if len(wrapped) == 1 else [value]


def _objects(values: list[Any]) -> bool:
    # A list of messages is a value of one row, not a table of rows.
    return all(isinstance(v, dict) and not {"role", "from"} & set(v) for v in values)


def _csv(path: Path, split: str) -> list[SourceRow]:
    del split
    # Inside a quoted cell csv keeps the \r, which would be a token of the text.
    text = _text(path).replace("\r\n", "\n")
    # csv.Sniffer looks at the cells, which are prose and full of commas.
    header = text.partition("\n")[0]
    delimiter = "\t" if suffix_of(path) == ".tsv" else max(DELIMITERS, key=header.count)
    csv.field_size_limit(CELL_LIMIT)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    rows: list[SourceRow] = []
    try:
        for row in reader:
            at = {"where": str(path), "number": len(rows), "line": reader.line_num}
            # DictReader puts surplus cells under the key None and fills missing ones with None.
            uneven = None in row or None in row.values()
            error = "not as many columns as the header" if uneven else ""
            rows.append(SourceRow({} if uneven else row, **at, error=error))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
    return rows


def _parquet(path: Path, split: str) -> list[SourceRow]:
    del split
    # Imported here: a run on JSON Lines starts without it.
    import pyarrow
    import pyarrow.parquet

    try:
        return from_table(pyarrow.parquet.read_table(path).to_pylist(), str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file ({error!s:.120})") from error


def _arrow(path: Path, split: str) -> list[SourceRow]:
    del split
    import datasets
    import pyarrow

    try:
        return from_table(datasets.Dataset.from_file(str(path)), str(path))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not an Arrow file ({error!s:.120})") from error


_BY_COLUMNS = (".parquet", ".arrow")
READERS: dict[str, Callable[[Path, str], list[SourceRow]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
"""Ending -> (path, split) to rows."""
