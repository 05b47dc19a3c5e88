"""The repr of an architecture, by which a resumed run is compared with the one it continues."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

LATER: dict[str, Any] = {"default_in_repr": False}
"""Metadata of a dataclass field that is younger than stored runs."""


class StableRepr:
    """The repr of a dataclass without those fields of metadata `LATER` that have their default: a
    run from before such a field compares equal.
    """

    def __repr__(self) -> str:
        shown = (f for f in fields(self) if f.repr and not self._is_default(f))  # type: ignore[arg-type]
        values = ", ".join(f"{f.name}={getattr(self, f.name)!r}" for f in shown)
        return f"{type(self).__name__}({values})"

    def _is_default(self, f: Field) -> bool:
        return not f.metadata.get("default_in_repr", True) and getattr(self, f.name) == f.default
