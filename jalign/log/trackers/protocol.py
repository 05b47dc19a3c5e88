"""The protocol of a tracker: implement it to send a run elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """What a tracker is told about a run.

    Attributes:
      name: of the run: the name of its folder.
      id: 16 hexadecimal digits; the same in every session of a run, another in every other run.
      project: that the run belongs to (`log.project`).
      folder: local folder whose files end up in the run's folder.
      config: options of the run.
      start: optimizer steps that were taken before this session; metrics of later steps may have
        been sent before, by a session that was killed.
    """

    name: str
    id: str
    project: str
    folder: Path
    config: Mapping[str, Any]
    start: int = 0


class Tracker(Protocol):
    """Receives what a run records. Only process 0 of a run calls it.

    An error of `start` ends the run before its first step. A later one is logged, and the tracker
    is not called again: a lost connection must not end a run.
    """

    def start(self, run: TrackedRun) -> None:
        """Begin, or continue the tracked run of the same `id`."""
        ...

    def scalars(self, step: int, kind: str, metrics: Mapping[str, float | None]) -> None:
        """Metrics of a step; None stands for a number that is not finite.

        Args:
          kind: "train", "eval" or "samples"; `jalign.log.trackers.tag` makes names of curves.
        """
        ...

    def texts(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """A table of texts; those of the first evaluation are beside them under `before`."""
        ...

    def flush(self) -> None:
        """Write what waits: a checkpoint is about to be saved."""
        ...

    def close(self) -> None:
        """End the session."""
        ...
