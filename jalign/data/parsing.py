"""Parse the rows of a data set into records, source by source, and report unread columns."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from jalign.data.examples import Report
from jalign.data.fields import Fields
from jalign.data.kinds import ANNOTATOR, OPTIONAL, names_of, optional_column, recognize
from jalign.data.layouts import canonical, described
from jalign.data.records import PARSERS, NothingToLearn, Record
from jalign.data.rows import Row, SourceRow, is_number, place_of

SOURCE_COLUMN = "_source"
"""Column in which a mixture notes where a row comes from."""
CONTEXT = (*names_of("system"), *names_of("tools"), "history", "input")
NOT_TEXT = ("image", "images", "video", "videos", "audio", "audios")
# What malformed values raise inside the parsers; anything else is our own mistake.
ERRORS = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)


class Source(NamedTuple):
    """The rows of one source, in the usual columns.

    Attributes:
      name: in a mixture, else nothing.
      kind: of the records they make.
      explanation: why, in a sentence.
      rows: number of a row -> the row.
      numeric: the optional numbers that are read.
    """

    name: str
    kind: str
    explanation: str
    rows: dict[int, Row]
    numeric: frozenset[str]


def sources_of(
    rows: Sequence[Row], wanted: str | None = None, numeric: Collection[str] | None = None
) -> list[Source]:
    """The sources of a mixture (or the only one). Each is recognized separately.

    Raises:
      ValueError: unrecognized columns.
    """
    groups: dict[str, dict[int, Row]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.get(SOURCE_COLUMN, ""), {})[i] = canonical(row)
    sources = []
    for name, members in groups.items():
        some, columns = list(members.values()), columns_of(members.values())
        try:
            kind, _ = recognize(columns, some, wanted)
        except ValueError:
            columns = columns_of(some, empty=True)  # ratings that are null in all rows
            kind, _ = recognize(columns, some, wanted)
        read = _numeric_columns(some, kind, numeric)
        _, explanation = recognize(columns, some, wanted, read)
        if more := described(rows[i] for i in members):
            explanation += f"; {more}"
        sources.append(Source(name, kind, explanation, members, read))
    return sources


def columns_of(rows: Collection[Row], *, empty: bool = False) -> list[str]:
    """Every column that holds something, or also those of nulls alone."""
    items = (item for row in rows for item in row.items())
    columns = dict.fromkeys(name for name, value in items if empty or value is not None)
    columns.pop(SOURCE_COLUMN, None)
    return list(columns)


def parsed(source: Source, drop: bool, unread: str, report: Report) -> list[Record]:
    """The records of a source; dropped rows and unread columns go to the report."""
    used: set[str] = set()
    records = []
    for i, row in source.rows.items():
        try:
            if isinstance(row, SourceRow) and row.error:
                raise ValueError(row.error)
            record = PARSERS[source.kind](Fields(row, source.numeric, used))
            _check_encodable(record)
            at = row.place if isinstance(row, SourceRow) else ""
            records.append(record._replace(row=i, source=source.name, place=at))
        except NothingToLearn as error:
            report.drop(str(error))
        except ERRORS as error:
            bad = RowError(error, _named(place_of(row, i), source.name))
            if not drop:
                raise bad from error
            report.drop(bad.reason)
    names = {name for record in records for name in record.extras} - {"rating", "attribute_ratings"}
    if any(names - set(record.extras) for record in records):
        records = _complete(records, names, drop, report)
    columns = columns_of(source.rows.values())
    named = set(re.findall(r"[\w-]+", source.explanation))
    beside = [c for c in columns if c in used and c in CONTEXT and c not in named]
    rest = [c for c in columns if c not in used]
    explanation = source.explanation + f"; with {', '.join(beside)}" * bool(beside)
    explanation += f"; {unread}: {', '.join(rest)}" * bool(rest)
    prefix = f"{source.name}: " if source.name else ""
    report.explanation = "; ".join(filter(None, (report.explanation, prefix + explanation)))
    if shown := [c for c in rest if c in NOT_TEXT]:
        report.warnings.append(f"{', '.join(shown)}: only text is trained on")
    _warn_of_marks(records, report)
    return records


def _check_encodable(record: Record) -> None:
    try:
        # JSON allows a lone surrogate; the tokenizer would fail on it, far from its row.
        json.dumps(record[:2], ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(
            f"a lone surrogate {half!a} (half of a character) cannot be encoded"
        ) from error


class RowError(ValueError):
    """A row that cannot be read.

    Attributes:
      reason: error message without the values of this row, to count rows by.
    """

    def __init__(self, error: Exception, place: str):
        known = isinstance(error, ValueError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        super().__init__(f"{place}: {text} (data.bad_rows: drop leaves such rows out)")
        # Without the value: a reason per row would make the report as long as the data.
        for mark in (", got", "; ", ": {", ": '", " ("):
            text = text.partition(mark)[0]
        self.reason = f"bad row: {text}"


def _complete(records: list[Record], names: set[str], drop: bool, report: Report) -> list[Record]:
    """Require these optional numbers in all records of a source."""
    kept = []
    for record in records:
        missing = sorted(names - set(record.extras))
        if not missing:
            kept.append(record)
            continue
        error = ValueError(f"no {', '.join(missing)}, which other rows have")
        bad = RowError(error, _named(record.where, record.source))
        if not drop:
            raise bad
        report.drop(bad.reason)
    return kept


def _named(place: str, source: str) -> str:
    return place if source in place else f"{place} of {source}"


def _numeric_columns(
    rows: Sequence[Row], kind: str, numeric: Collection[str] | None
) -> frozenset[str]:
    """The optional numbers to read: those asked for, or all that every row has."""

    def holds(name: str, row: Row) -> bool:
        own = optional_column(name, row)
        return own is not None and (
            row[own] is not None if name == ANNOTATOR else is_number(row[own])
        )

    if numeric is None:
        read = {n for n in OPTIONAL[kind] if rows and all(holds(n, row) for row in rows)}
        derived = {"margin"} if {"score_chosen", "score_rejected"} <= read else set()
        return frozenset(read | derived | {"rating", "attribute_ratings"})
    # Every loss can read weights, so they are asked for also where the data has none; without
    # annotators, all labels are of one.
    absent = {n for n in ("weight", ANNOTATOR) if not any(holds(n, row) for row in rows)}
    return frozenset(set(numeric) - absent)


def _warn_of_marks(records: list[Record], report: Report) -> None:
    messages = (
        m
        for r in records
        for side in (r.prompt, *r.responses)
        if isinstance(side, list)
        for m in side
        if isinstance(m, dict)
    )
    if n := sum(bool(m.get("train")) for m in messages):
        report.warnings.append(
            f"{n} messages that are not the assistant's ask to be trained on; only the assistant's "
            "are scored"
        )
