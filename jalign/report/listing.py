"""The runs below a folder: what, where, how they stand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jalign import store
from jalign.report.record import load
from jalign.report.state import State, headline, state_of
from jalign.run.files import CHECKPOINTS, CONFIG_FILE, is_run

_DEEPEST = 4


class Entry(NamedTuple):
    """A run in a list.

    Attributes:
      folder: as it is given to other commands.
      step, steps: the last recorded step, and those of the whole run (0: not known).
      metric: name of the metric that says most about it, with its last value; None without any.
      time: seconds since 1970 when its record last grew.
    """

    folder: str
    algorithm: str
    model: str
    state: State
    step: int
    steps: int
    metric: tuple[str, float] | None
    time: float | None


def runs_in(folder: str) -> list[Entry]:
    """The runs in a folder, or in folders below it, the newest record first.

    Raises:
      ValueError: there is no such folder.
    """
    path = store.as_path(folder)
    if not path.is_dir():
        raise ValueError(f"there is no folder {folder}")
    entries = [_entry(str(run)) for run in _walk(path, 0)]
    return sorted(entries, key=lambda entry: -(entry.time or 0.0))


def _walk(folder: store.StorePath, depth: int) -> Iterator[store.StorePath]:
    if is_run(str(folder)):
        yield folder
        return  # what is below are its own files
    if depth == _DEEPEST:
        return
    try:
        children = sorted(folder.iterdir())
    except OSError:  # somebody else's
        return
    for child in children:
        hidden = child.name.startswith((".", "_")) or child.name in (CHECKPOINTS, "node_modules")
        if not hidden and child.is_dir() and child.name != CONFIG_FILE:
            yield from _walk(child, depth + 1)


def _entry(folder: str) -> Entry:
    run = load(folder, responses=False)
    best = headline(run)
    return Entry(
        folder=folder,
        algorithm=run.algorithm,
        model=str(run.option("model.path", "")),
        state=state_of(run),
        step=run.step,
        steps=run.steps,
        metric=best and (best[0], best[1].values[-1]),
        time=run.last_time,
    )
