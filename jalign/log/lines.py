"""Append-only JSON Lines that survive a full disk and damaged lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jalign import store

LOG = logging.getLogger(__name__)

FILE = "metrics.jsonl"
"""The metrics and texts of a run, in its folder: the same again where the run is repeated."""

EVENTS = "events.jsonl"
"""What happened when: sessions, phases, messages. Nothing is dropped from it by resuming."""


class Lines:
    """A file of records, each on disk when `append` returns.

    Records that cannot be written wait in memory until there is room again: a full disk must not
    end a run for its log.

    Args:
      path: existing records are kept.
    """

    def __init__(self, path: Path):
        self.path = path
        # unbuffered: after a kill every line is there whose append returned
        self._file = path.open("a+b", buffering=0)
        self._waiting, self._failing = b"", False
        if self._file.seek(0, 2):
            self._file.seek(-1, 2)
            # the partial line of a killed process ends here, or it would spoil the next one
            self._waiting = b"" if self._file.read(1) == b"\n" else b"\n"

    def append(self, record: Mapping[str, object]) -> None:
        self._waiting += (json.dumps(record, ensure_ascii=False) + "\n").encode()
        try:
            # Unbuffered writes may be partial: only the bytes that were taken leave the queue.
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]
        except OSError as error:
            if not self._failing:
                LOG.error(
                    "%s cannot be written, training continues without it: %s", self.path, error
                )
            self._failing = True
            return
        if self._failing:
            LOG.warning("%s is written again, nothing is missing", self.path)
        self._failing = False

    def records(self) -> list[dict[str, object]]:
        """All records, those in memory included."""
        return parse(self.path.read_bytes() + self._waiting)[0]

    def close(self) -> None:
        self._file.close()
        if self._waiting:
            lost = self._waiting.count(b"\n")
            LOG.error("the last %d lines of %s were not written", lost, self.path)


def parse(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The records of a file, and the number of damaged lines. Text after the last line break is the
    partial line of a killed process.
    """
    records, damaged = [], 0
    for line in data.split(b"\n")[:-1]:
        record: Any = None
        try:
            record = json.loads(line)
            sound = isinstance(record["step"], int) and isinstance(record["kind"], str)
        # RecursionError: damage may look like very deep brackets
        except (ValueError, TypeError, KeyError, RecursionError):
            sound = False
        if sound:
            records.append(record)
        else:
            damaged += 1
    return records, damaged


def read(folder: store.StorePath, name: str = FILE) -> list[dict[str, Any]]:
    """The sound records of a file in a run's folder, oldest first; [] before it has any."""
    file = folder / name
    return parse(file.read_bytes())[0] if file.exists() else []


def drop_after(path: Path, step: int) -> int:
    """Drop the records after a step; returns the step of the last one dropped, 0 if none was.

    A killed run may have logged steps after its last checkpoint, and a partial line. A run that
    starts from scratch evaluates step 0 again, so it keeps nothing.
    """
    if not path.exists():
        return 0
    records, damaged = parse(path.read_bytes())
    if damaged:
        LOG.warning("%s: %d damaged lines are dropped", path, damaged)
    kept = [record for record in records if step and record["step"] <= step]
    last = max((record["step"] for record in records), default=0)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
    # replaced as a whole: a kill here must not lose the record of the run
    store.write(path, lambda file: file.write(text.encode()))
    return last if len(kept) < len(records) else 0
