"""The logging protocol of training: implement it to send metrics elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol


class Logger(Protocol):
    """The sink that the hooks of a run write to. `RunLog` implements it, and a user's logger may.

    Attributes:
      aside_s: seconds spent in phases so far; training speed excludes them.
    """

    @property
    def aside_s(self) -> float: ...

    def write(self, step: int, metrics: Mapping[str, float], kind: str = "train") -> None:
        """Record scalars of a step. `kind` is "train", "eval" or "samples"."""
        ...

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Record a table of texts, such as sampled continuations."""
        ...

    def tick(self, step: int) -> None:
        """Called after every step, before its metrics are known."""
        ...

    def phase(
        self, name: str, total: int | None = None
    ) -> AbstractContextManager[Callable[[int], None]]:
        """Show a phase other than training; yields a callback to advance towards `total`."""
        ...
