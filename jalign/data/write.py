"""Records back to rows, in the columns that `jalign.data.kinds` recognizes."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jalign import store
from jalign.data.parsing import SOURCE_COLUMN
from jalign.data.records import Record
from jalign.data.rows import Row

ENDINGS = (".jsonl", ".jsonl.gz")


def _answer(record: Record) -> dict[str, Any]:
    return {"completion": record.responses[0]}


RESPONSES: dict[str, Callable[[Record], dict[str, Any]]] = {
    "supervised": _answer,
    "pairs": lambda record: dict(zip(("chosen", "rejected"), record.responses, strict=True)),
    "binary": _answer,
    "rated": _answer,
    "lists": lambda record: {"responses": record.responses},
    "stepwise": lambda record: {"completions": record.responses[0]},
    "prompts": lambda record: {},
}
"""Kind -> the columns of its responses. Joint records have none: they are made from pairs."""

COLUMNS = {"step_labels": "labels", "attribute_ratings": "attributes"}
"""Extra -> its column, if the name differs."""


def to_rows(
    records: Sequence[Record],
    kind: str,
    attributes: Sequence[str] = (),
    annotators: Sequence[str] = (),
) -> list[dict[str, object]]:
    """Rows from which the same records are read. Texts without a prompt get a column `text`; a
    number that only some records have is null in the others.

    Args:
      kind: of the records.
      attributes: names of the places of `attribute_ratings`.
      annotators: names behind the numbers of `annotator`.

    Raises:
      ValueError: a kind that has no columns of its own.
    """
    if kind not in RESPONSES:
        raise ValueError(f"{kind!r} has no columns of its own; there is: {', '.join(RESPONSES)}")
    alone = RESPONSES[kind] is _answer and all(record.prompt == "" for record in records)
    extras = sorted({name for record in records for name in record.extras})
    with_tools, with_source = any(r.tools for r in records), any(r.source for r in records)
    rows = []
    for record in records:
        prompt = {"prompt": record.prompt} | RESPONSES[kind](record)
        row = {"text": record.responses[0]} if alone else prompt
        for name in extras:
            value = record.extras.get(name)
            if name == "label":
                value = bool(value)
            elif name == "annotator" and value is not None:
                value = annotators[value]
            elif name == "attribute_ratings" and value is not None:
                # JSON has no NaN: a missing rating is null.
                given = zip(attributes, value, strict=True)
                value = {name: None if math.isnan(x) else x for name, x in given}
            row[COLUMNS.get(name, name)] = value
        row |= {"tools": record.tools} if with_tools else {}
        row |= {SOURCE_COLUMN: record.source} if with_source else {}
        rows.append(row)
    return rows


def check_name(path: str | Path) -> Path:
    """The path, if it is one that rows are written to.

    Raises:
      ValueError: another ending, or a place in an object store.
    """
    if not str(path).endswith(ENDINGS):
        raise ValueError(f"rows are written to a file that ends in {' or '.join(ENDINGS)}: {path}")
    return store.local(path, "a file of rows")


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """JSON Lines, compressed where the name ends in .gz; the same rows give the same bytes. The
    write is atomic.
    """
    path = check_name(path)
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    # gzip would store the time otherwise, and equal rows would give other bytes.
    content = gzip.compress(data, mtime=0) if path.suffix == ".gz" else data
    store.write(path, lambda file: file.write(content))
