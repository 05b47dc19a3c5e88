"""The record of a run: metrics to a jsonl file, to TensorBoard, and to the display."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jalign import store
from jalign.log.display import Display
from jalign.log.lines import FILE, Lines, drop_after
from jalign.log.tensorboard import TensorBoard


class RunLog:
    """One run's record. Resuming from step s drops what an earlier process wrote after s.

    Args:
      directory: `metrics.jsonl` and TensorBoard's events are written there; to an object store by
        `put`.
      steps: optimizer steps of the whole run.
      start: steps already taken.
      display: of the progress.
      writes: whether this process writes the record; of several only the first does.

    Attributes:
      dropped: the last step after `start` that an earlier process recorded; 0: none.
      aside_s: seconds spent in phases that are not training, such as evaluations.
    """

    def __init__(
        self,
        directory: store.StorePath,
        *,
        steps: int,
        start: int,
        display: Display | None = None,
        writes: bool = True,
    ):
        self.path = directory / FILE
        self.tensorboard = directory
        self._lines: Lines | None = None
        self.dropped = 0
        self._spool: store.UploadQueue | None = None
        if writes:
            if store.is_remote(directory):
                self._spool = store.UploadQueue(directory, self.path.name)
            folder = self._spool.local if self._spool else Path(directory)
            folder.mkdir(parents=True, exist_ok=True)
            self.dropped = drop_after(folder / self.path.name, start)
            self._lines = Lines(folder / self.path.name)
            self._board = TensorBoard(
                folder,
                # TensorBoard has no way to delete points: it hides them from this step on
                purge_step=start + 1 if start else None,
                suffix=f".{start}" if self._spool else "",  # an object is replaced
            )
        self.display, self._steps, self.aside_s = display or Display(), steps, 0.0
        self.display.training(start, steps)

    def write(self, step: int, metrics: Mapping[str, float], kind: str = "train") -> None:
        """Record scalars of one step; a number that is not finite is written as null."""
        # JSON has no NaN: json.dumps would write one, which other readers refuse
        finite = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
        record = {"step": step, "kind": kind, "time": round(time.time(), 3), **finite}
        self._append(record)
        if self._lines:
            self._board.scalars(step, kind, finite)
        self.display.metrics(kind, step, self._steps, metrics)

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Record a table of texts (sample generations)."""
        self._append({"step": step, "kind": name, "rows": rows})
        if self._lines:
            # from the file, so that a resumed run still compares with the first samples
            first, *later = self.rows(name)
            self._board.texts(step, name, _beside(first["rows"], rows) if later else rows)

    def settings(self, config: Mapping[str, object]) -> None:
        """Show the config of the run beside its curves."""
        if self._lines:
            self._board.settings(config)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind, those of earlier processes included."""
        records = self._lines.records() if self._lines else []
        return [record for record in records if record["kind"] == kind]

    def say(self, message: str) -> None:
        """Print a line."""
        self.display.say(message)

    def tick(self, step: int) -> None:
        """Move the bar to a step, whose metrics are not read back yet."""
        self.display.training(step, self._steps)

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A phase of the display, whose time does not count as training."""
        since = time.perf_counter()
        try:
            with self.display.phase(name, total) as advance:
                yield advance
        finally:
            self.aside_s += time.perf_counter() - since

    def put(self) -> None:
        """Upload to an object store; files on disk are written after every line."""
        if self._spool:
            self._board.flush()
            self._spool.put()

    def close(self) -> None:
        self.display.close()
        if self._lines:
            self._lines.close()
            self._board.close()
        if self._spool:
            self._spool.close()

    def _append(self, record: Mapping[str, object]) -> None:
        if self._lines:
            self._lines.append(record)


def _beside(
    first: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, object]]:
    """Continuations of the same prompts with those before the first step, to be compared."""
    if not all("continuation" in row for row in (*first, *rows)):
        return rows
    before = {row["prompt"]: row["continuation"] for row in first}
    return [
        {"prompt": row["prompt"], "before": before.get(row["prompt"]), "now": row["continuation"]}
        for row in rows
    ]
