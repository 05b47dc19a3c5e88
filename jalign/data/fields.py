"""Access to the columns of a row by jalign's names; records which ones were read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from jalign.data.kinds import names_of, optional_column
from jalign.data.rows import Row
from jalign.signatures import nearest


@dataclass
class Fields:
    """A row while it is parsed.

    Attributes:
      row: its columns. A null column is used only if no alias holds a value.
      numeric: which optional numbers are read; None: all.
      used: gets the columns that are asked for, those of several rows together.
    """

    row: Row
    numeric: Collection[str] | None = None
    used: set[str] = field(default_factory=set)

    def find(self, name: str) -> str | None:
        """Name of this column in the row; None if it is missing or null."""
        there = [alias for alias in names_of(name) if alias in self.row]
        # A column of nulls was read, too: the report must not list it as not read.
        self.used |= set(there[:1])
        own = next((alias for alias in there if self.row[alias] is not None), None)
        self.used |= {own} if own else set()
        return own

    def get(self, name: str) -> Any:
        """The value of a column, or null.

        Raises:
          ValueError: no such column.
        """
        if own := self.find(name):
            return self.row[own]
        if not any(alias in self.row for alias in names_of(name)):
            raise ValueError(
                f"no column {name!r}{nearest(name, self.row)}; there is: {', '.join(self.row)}; "
                f"allowed names: {', '.join(names_of(name))}"
            )
        return None

    def optional(self, name: str) -> Any:
        """The value of a column, or None."""
        own = self.find(name)
        return self.row[own] if own else None

    def sequence(self, name: str) -> list[object]:
        """The values of a column of lists.

        Raises:
          ValueError: something else.
        """
        value = self.get(name)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise ValueError(f"{name} must be a list, got {value!r:.80}")
        return list(value)

    def number(self, name: str, derived: str = "") -> tuple[str, object] | None:
        """Column and value of an optional number, if it (or a number derived from it) is read."""
        if self.numeric is not None and (derived or name) not in self.numeric:
            return None
        own = optional_column(name, self.row)
        if own is None or self.row[own] is None:
            return None
        self.used.add(own)
        return own, self.row[own]
