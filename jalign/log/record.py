"""The record of a run: metrics and events to jsonl files, to trackers, and to the display."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from jalign import store
from jalign.log import lines
from jalign.log.display import Display
from jalign.log.lines import EVENTS, FILE, Lines, drop_after
from jalign.log.trackers import TrackedRun, Tracker, tracker
from jalign.log.trackers.guarded import Trackers


class RunLog:
    """One run's record. Resuming from step s drops the metrics that an earlier process wrote after
    s; its events stay.

    Args:
      directory: the record and TensorBoard's events are written there; to an object store by `put`.
      steps: optimizer steps of the whole run.
      start: steps already taken.
      display: of the progress.
      writes: whether this process writes the record; of several only the first does.
      config: options of the run, for trackers.
      trackers: what else receives metrics and texts; None: TensorBoard.
      project: for trackers.

    Attributes:
      id: of the run; "" on a process that does not write its record.
      folder: local folder of the record; None on a process that does not write it.
      dropped: the last step after `start` that an earlier process recorded; 0: none.
      aside_s: seconds spent in phases that are not training, such as evaluations.
      data_wait_s: seconds for which the host waited for batches since the last line of metrics.
    """

    def __init__(
        self,
        directory: store.StorePath,
        *,
        steps: int,
        start: int,
        display: Display | None = None,
        writes: bool = True,
        config: Mapping[str, object] = {},
        trackers: Sequence[Tracker] | None = None,
        project: str = "jalign",
    ):
        self.path = directory / FILE
        self._lines: Lines | None = None
        self.dropped, self.folder = 0, None
        self._spool: store.UploadQueue | None = None
        self.display, self._steps, self._step = display or Display(), steps, start
        self.aside_s = self.data_wait_s = 0.0
        self.id = ""
        if writes:
            if store.is_remote(directory):
                self._spool = store.UploadQueue(directory, self.path.name, EVENTS)
            folder = self._spool.local if self._spool else Path(directory)
            folder.mkdir(parents=True, exist_ok=True)
            self.folder = folder
            self.dropped = drop_after(folder / self.path.name, start)
            run = TrackedRun(
                name=directory.name,
                id=_id_of(folder, start),
                project=project,
                folder=folder,
                config=config,
                start=start,
            )
            self.id = run.id
            self._trackers = Trackers(
                [tracker("tensorboard")] if trackers is None else trackers, run
            )
            self._lines = Lines(folder / self.path.name)
            self._events = Lines(folder / EVENTS)
        self.display.training(start, steps)

    def write(self, step: int, metrics: Mapping[str, float], kind: str = "train") -> None:
        """Record scalars of one step; a number that is not finite is written as null."""
        # JSON has no NaN: json.dumps would write one, which other readers refuse
        finite = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
        record = {"step": step, "kind": kind, "time": round(time.time(), 3), **finite}
        self._append(record)
        if self._lines:
            self._trackers.call(lambda tracker: tracker.scalars(step, kind, finite))
        if kind == "train" and self.data_wait_s:
            self.event("phase", name="waiting for data", seconds=round(self.data_wait_s, 3))
            self.data_wait_s = 0.0
        self.display.metrics(kind, step, self._steps, metrics)

    def text(self, step: int, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Record a table of texts (sample generations)."""
        self._append({"step": step, "kind": name, "rows": rows})
        if self._lines:
            # from the file, so that a resumed run still compares with the first samples
            first, *later = self.rows(name)
            shown = _beside(first["rows"], rows) if later else rows
            self._trackers.call(lambda tracker: tracker.texts(step, name, shown))

    def event(self, kind: str, **facts: object) -> None:
        """Record what happened now: `session`, `phase`, `message` or `end`, with its facts."""
        if self._lines:
            record = {"step": self._step, "kind": kind, "time": round(time.time(), 3)}
            self._events.append(record | facts)

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """All records of a kind, those of earlier processes included."""
        records = self._lines.records() if self._lines else []
        return [record for record in records if record["kind"] == kind]

    def say(self, message: str) -> None:
        """Print a line and record it."""
        self.event("message", text=message)
        self.display.say(message)

    def tick(self, step: int) -> None:
        """Move the bar to a step, whose metrics are not read back yet."""
        self._step = step
        self.display.training(step, self._steps)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record how long something takes; it still counts as training."""
        since = time.perf_counter()
        try:
            yield
        finally:
            self.event("phase", name=name, seconds=round(time.perf_counter() - since, 3))

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A phase of display and record, whose time does not count as training."""
        since = time.perf_counter()
        try:
            with self.timed(name), self.display.phase(name, total) as advance:
                yield advance
        finally:
            self.aside_s += time.perf_counter() - since

    def put(self) -> None:
        """Upload to an object store; files on disk are written after every line."""
        if self._lines:
            self._trackers.call(lambda tracker: tracker.flush())
        if self._spool:
            self._spool.put()

    def close(self) -> None:
        self.display.close()
        if self._lines:
            self._trackers.close()
            self._lines.close()
            self._events.close()
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
        {"prompt": row["prompt"], "before": before.get(row["prompt"]), "after": row["continuation"]}
        for row in rows
    ]


def _id_of(folder: Path, start: int) -> str:
    """The id that the run was given at its first start, or a new one. A run that starts from
    scratch forgets the events of the one before it in the same folder.
    """
    if not start:
        (folder / EVENTS).unlink(missing_ok=True)
    earlier = (row["id"] for row in lines.read(folder, EVENTS) if row["kind"] == "session")
    return next(earlier, uuid4().hex[:16])
