"""Rows in a Parquet file with the facts that decided them, made lot by lot and resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jalign import store
from jalign.data.journal import Made, fingerprint, make_file

Row = dict[str, Any]
MakeRows = Callable[[Sequence[Any], int], Sequence[Row]]
"""`(items, index of the first) -> one row per item`."""

_KEY = b"jalign"


def make_table(
    path: Path,
    schema: pa.Schema,
    items: Sequence[object],
    make: MakeRows,
    *,
    identity: Mapping[str, object],
    size: int,
    say: Callable[[str], None] = lambda text: None,
    advance: Callable[[int], None] = lambda count: None,
) -> list[Row]:
    """One row per item, from the file if it is complete, from its journal as far as that goes.

    Args:
      items: JSON values.
      identity: all other facts that decide the rows, by name.
      size: items of a lot; a killed process loses at most one lot.
      advance: called with the number of further items that are ready.

    Raises:
      ValueError: the file, or its journal, holds rows of other items or another identity.
    """
    known = json.loads(json.dumps({**identity, "items": fingerprint(items)}))
    if path.is_file():
        _check_identity(path, known)
        advance(len(items))
        return read_table(path)
    ready = 0

    def counted(lot: Sequence[Any], first: int, rows: list[Row]) -> list[Made]:
        nonlocal ready
        results = [Made([row], []) for row in make(lot, first)]
        # a resumed journal begins behind 0: the first advance covers what it holds
        advance(first + len(lot) - ready)
        ready = first + len(lot)
        return results

    def write(where: Path, rows: Iterable[Row]) -> None:
        write_table(where, schema, list(rows), known)

    rows, _ = make_file(path, items, counted, identity=identity, size=size, say=say, write=write)
    advance(len(items) - ready)
    return rows


def write_table(
    path: Path, schema: pa.Schema, rows: list[Row], identity: Mapping[str, object]
) -> None:
    """Write a file in one piece, its identity in the metadata."""
    metadata = {_KEY: json.dumps(identity)}
    table = pa.Table.from_pylist(rows, schema.with_metadata(metadata))
    store.write(path, lambda file: pq.write_table(table, file))


def read_table(path: Path) -> list[Row]:
    """All rows of a file."""
    return pq.read_table(path).to_pylist()


def identity_of(path: Path) -> dict[str, Any]:
    """The facts that decided the rows of a file."""
    metadata = pq.read_schema(path).metadata or {}
    return json.loads(metadata.get(_KEY, b"{}"))


def _check_identity(path: Path, now: Mapping[str, Any]) -> None:
    then = identity_of(path)
    names = sorted(then.keys() | now.keys())
    if differs := [n for n in names if then.get(n) != now.get(n)]:
        shown = "; ".join(f"{n}: {then.get(n)!r} then, {now.get(n)!r} now" for n in differs)
        raise ValueError(f"{path} was made otherwise ({shown}): delete it, or choose another --out")
