"""Trackers that cannot end a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from jalign.log.trackers.protocol import TrackedRun, Tracker

LOG = logging.getLogger(__name__)


class Trackers:
    """Several trackers as one. One whose call fails is reported and not called again."""

    def __init__(self, trackers: Sequence[Tracker], run: TrackedRun):
        self._trackers: list[Tracker] = []
        for tracker in trackers:
            tracker.start(run)
            self._trackers.append(tracker)

    def call(self, send: Callable[[Tracker], None]) -> None:
        """Call `send` with each tracker."""
        for tracker in list(self._trackers):
            try:
                send(tracker)
            except Exception as error:  # every library has its own
                name, kind = type(tracker).__name__, type(error).__name__
                LOG.error(
                    "%s failed (%s: %s): it gets nothing more of this run, whose own record is "
                    "complete",
                    name, kind, error,
                )  # fmt: skip
                self._trackers.remove(tracker)

    def close(self) -> None:
        self.call(lambda tracker: tracker.close())
        self._trackers = []
