"""A row of a data set with its location."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jalign.signatures import nearest

Row = Mapping[str, Any]


class SourceRow(dict[str, Any]):
    """A row with its location; a value that is no object makes an empty row with an error.

    Attributes:
      where: the file or data set.
      number: of the row in it, the first is 0.
      line: of the row in the file, the first is 1; 0 where there are no lines.
      error: why it could not be read, or "".
    """

    __slots__ = ("error", "line", "number", "where")

    def __init__(
        self,
        values: object = {},
        *,
        where: str,
        number: int,
        line: int = 0,
        error: str = "",
    ):
        if not isinstance(values, Mapping):
            error = f"a row must be a JSON object, got {type(values).__name__}"
            values = {}
        super().__init__(values)
        self.where, self.number, self.line, self.error = where, number, line, error

    @property
    def place(self) -> str:
        """`pairs.jsonl, row 49 (line 50)`."""
        return f"{self.where}, row {self.number}" + (f" (line {self.line})" if self.line else "")

    def replaced(self, values: Row) -> SourceRow:
        """A row with other columns and the same location."""
        at = {"where": self.where, "number": self.number, "line": self.line}
        return SourceRow(values, **at, error=self.error)


class Places:
    """Compact locations of rows: `SourceRow.place` for each."""

    def __init__(self, rows: Sequence[Row]):
        known = [r for r in rows if isinstance(r, SourceRow)] if rows else []
        self._files = tuple(dict.fromkeys(r.where for r in known))
        number = {name: i for i, name in enumerate(self._files)}
        here = known if len(known) == len(rows) else []
        # Numbers, not texts: the report keeps the place of every row that was read.
        self._at = np.array([(number[r.where], r.number, r.line) for r in here], np.int32)

    def __getitem__(self, row: int) -> str:
        """Location of a row; `row 3` if it was not read from a file."""
        if row >= len(self._at):
            return f"row {row}"
        file, number, line = self._at[row].tolist()
        return SourceRow(where=self._files[file], number=number, line=line).place


def place_of(row: Row, number: int) -> str:
    """Location of a row: in its file, or its index in the list of rows."""
    return row.place if isinstance(row, SourceRow) else f"row {number}"


def replaced(row: Row, values: Row) -> dict[str, object]:
    """A row with other columns and the location of `row`."""
    return row.replaced(values) if isinstance(row, SourceRow) else dict(values)


def is_number(value: Any) -> bool:
    """Whether a value, or the text of a CSV file, is a number."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def rename(rows: Iterable[Row], columns: Mapping[str, str]) -> list[dict[str, object]]:
    """Rows with columns renamed, `{our name: their name}`; it replaces one that has our name."""
    rows = list(rows)
    there = dict.fromkeys(name for row in rows for name in row)
    for theirs in columns.values():
        if theirs not in there and rows:
            raise ValueError(
                f"no row has a column {theirs!r}{nearest(theirs, there)}; "
                f"there is: {', '.join(there)}"
            )
    renamed = []
    for row in rows:
        rest = {k: v for k, v in row.items() if k not in columns and k not in columns.values()}
        named = {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
        renamed.append(replaced(row, rest | named))
    return renamed
