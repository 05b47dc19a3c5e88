"""Whether a run is running, has finished, was stopped, or diverged, by its record."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from jalign.report.record import Row, RunRecord, Series
from jalign.train.exit_code import ExitCode

_SILENT_S = 900.0
"""A run of another machine that has recorded nothing for so long counts as stopped."""

_BY_CODE = {
    ExitCode.OK: "finished",
    ExitCode.DIVERGED: "diverged",
    ExitCode.PREEMPTED: "stopped",
    ExitCode.NOTHING_LEARNED: "nothing learned",
}


class State(NamedTuple):
    """How a run stands.

    Attributes:
      word: running, finished, stopped, diverged, failed, or nothing learned.
      why: what is known beyond the word.
    """

    word: str
    why: str = ""


def is_alive(pid: int) -> bool:
    """Whether a process of this machine runs."""
    try:
        os.kill(pid, 0)  # signal 0 asks, and does nothing
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def state_of(
    run: RunRecord, now: float | None = None, alive: Callable[[int], bool] = is_alive
) -> State:
    """The state of a run.

    Args:
      now: seconds since 1970.
      alive: whether a process of this machine runs.
    """
    now = time.time() if now is None else now
    sessions, ends = run.happened("session"), run.happened("end")
    if not sessions:
        return _without_events(run, now)
    session = sessions[-1]
    if ends and ends[-1]["time"] >= session["time"]:
        return _ended(run, ends[-1])
    # a process id says something on its own machine only
    here = session.get("host") == socket.gethostname()
    if here and alive(int(session["pid"])):
        return State("running", f"process {session['pid']}")
    quiet_s = now - (run.last_time or 0.0)
    if not here and quiet_s < _SILENT_S:
        return State("running", f"on {session.get('host')}")
    return State("stopped", f"its process ended without a word after step {run.step}")


def _ended(run: RunRecord, end: Row) -> State:
    if error := end.get("error"):
        return State("failed", str(error))
    code = int(end.get("code", 0))
    known = _BY_CODE.get(ExitCode(code)) if code in set(ExitCode) else None
    began = run.happened("session")[-1]["time"]
    messages = [row["text"] for row in run.happened("message") if row["time"] >= began]
    reasons = [text for text in messages if text.startswith("ended after")]
    why = reasons[-1] if reasons else str(end.get("meaning", ""))
    return State(known or "failed", "" if code == 0 and not reasons else why)


def _without_events(run: RunRecord, now: float) -> State:
    """Runs of older versions tell neither when they began nor how they ended."""
    loss = [row for row in run.of("train") if "loss" in row]
    if loss and loss[-1]["loss"] is None:
        return State("diverged", f"the loss is not finite at step {loss[-1]['step']}")
    if run.steps and run.step >= run.steps:
        return State("finished")
    if stops := run.of("stop"):
        return State("finished", str(stops[-1]["rows"][0].get("reason", "")))
    if run.last_time and now - run.last_time < _SILENT_S:
        return State("running")
    return State("stopped", f"after step {run.step}")


HEADLINES = (
    ("eval", "reward"),
    ("eval", "rewards/accuracies"),
    ("eval", "loss"),
    ("train", "reward"),
    ("train", "rewards/accuracies"),
    ("train", "loss"),
)
"""Metrics that say most about a run, the first of which it has."""


def headline(run: RunRecord) -> tuple[str, Series] | None:
    """The metric that says most about a run, with its values."""
    for kind, name in HEADLINES:
        if (series := run.series(kind, name)).values:
            return f"held-out {name}" if kind == "eval" else name, series
    return None
