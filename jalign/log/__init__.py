"""The record of a run on disk, and its display."""

from jalign.log.display import Display
from jalign.log.logger import Logger
from jalign.log.record import RunLog
from jalign.log.trackers import TrackedRun, Tracker

__all__ = ["Display", "Logger", "RunLog", "TrackedRun", "Tracker"]
