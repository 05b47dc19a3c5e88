"""Where the time of a run went: loading, compiling, stepping, evaluating, saving, waiting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from jalign.report.record import Row, RunRecord

CATEGORIES: tuple[str, ...] = (
    "loading", "compiling", "stepping", "rollouts", "evaluating", "sampling", "saving",
    "waiting for data", "other",
)  # fmt: skip
"""In the order of the legend; the color of each is its index."""

_WORDS = {
    "compiling": "compiling",
    "evaluating": "evaluating",
    "answering the held-out prompts": "evaluating",
    "sampling continuations": "sampling",
    "sampling and scoring responses": "rollouts",
    "saving": "saving",
}


class Segment(NamedTuple):
    """A stretch of time, seconds since 1970."""

    category: str
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


class Session(NamedTuple):
    """The time from the start of a process to its last sign of life.

    Attributes:
      segments: ascending, without gaps.
      waited_s: seconds for which the host waited for batches, within `stepping`.
    """

    start: int
    segments: list[Segment]
    waited_s: float

    @property
    def seconds(self) -> float:
        return self.segments[-1].end - self.segments[0].begin

    def totals(self) -> dict[str, float]:
        """Seconds by category."""
        sums = dict.fromkeys(CATEGORIES, 0.0)
        for segment in self.segments:
            sums[segment.category] += segment.seconds
        waited = min(self.waited_s, sums["stepping"])
        sums["stepping"] -= waited
        sums["waiting for data"] += waited
        return {name: x for name, x in sums.items() if x > 0}


def sessions_of(run: RunRecord) -> list[Session]:
    """The sessions of a run; one, estimated from its metrics, if it recorded no events."""
    starts = [i for i, row in enumerate(run.events) if row["kind"] == "session"]
    if not starts:
        session = _without_events(run)
        return [session] if session else []
    parts = [run.events[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)]
    sessions = [_session(run, rows, last=rows is parts[-1]) for rows in parts]
    return [session for session in sessions if session.segments]


def merged(segments: Iterable[Segment], least_s: float) -> list[Segment]:
    """Segments of the same category are joined over gaps and others shorter than `least_s`."""
    result: list[Segment] = []
    for segment in segments:
        if result and segment.category == result[-1].category:
            result[-1] = result[-1]._replace(end=segment.end)
        elif segment.seconds >= least_s or not result:
            result.append(segment)
        else:
            result[-1] = result[-1]._replace(end=segment.end)
    return result


def _session(run: RunRecord, events: list[Row], *, last: bool) -> Session:
    first = events[0]
    loaded = float(first["time"])
    began = loaded - float(first.get("loading_s", 0))
    end = float(events[-1]["time"])
    # metrics that a later session repeats were dropped, so earlier sessions have their events only
    if last and run.last_time:
        end = max(end, run.last_time)
    phases = [row for row in events if row["kind"] == "phase" and row["name"] != "waiting for data"]
    spans = [_span(row) for row in phases]
    segments = [Segment("loading", began, loaded)] if loaded > began else []
    at = loaded
    for span in sorted(spans, key=lambda s: s.begin):
        if span.end <= at:  # within another phase
            continue
        if span.begin > at:
            segments.append(Segment("stepping", at, span.begin))
        segments.append(span._replace(begin=max(span.begin, at)))
        at = span.end
    if end > at:
        segments.append(Segment("stepping", at, end))
    waits = [row["seconds"] for row in events if row.get("name") == "waiting for data"]
    return Session(int(first["start"]), segments, float(sum(waits)))


def _span(row: Row) -> Segment:
    name = str(row["name"])
    category = next((c for word, c in _WORDS.items() if name.startswith(word)), "other")
    return Segment(category, float(row["time"]) - float(row["seconds"]), float(row["time"]))


def _without_events(run: RunRecord) -> Session | None:
    """Steps by their logged times; what lies between is `other`: compiling, evaluating, saving."""
    rows = [row for row in run.metrics if "time" in row]
    if len(rows) < 2:
        return None
    segments: list[Segment] = []
    at, before = float(rows[0]["time"]), 0
    for row in rows[1:]:
        now = float(row["time"])
        if row["kind"] != "train" or now <= at:
            continue
        stepping = min(float(row.get("step_time") or 0) * (row["step"] - before), now - at)
        if now - stepping > at:
            segments.append(Segment("other", at, now - stepping))
        segments.append(Segment("stepping", now - stepping, now))
        at, before = now, row["step"]
    return Session(0, segments, 0.0) if segments else None
