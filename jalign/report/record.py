"""A run as its folder tells it: config, metrics, events, texts and rollouts.

Nothing is loaded or computed by a model, so that runs of any size, on any machine, of older
versions, killed or under way are read alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from jalign import store
from jalign.log import lines
from jalign.run.files import CONFIG_FILE, ROLLOUTS

Row = Mapping[str, Any]

_MOST_ROLLOUTS = 40
"""Rollouts that are read: the first and the last ones, and others at equal distances."""


class Series(NamedTuple):
    """Finite values of a metric by step, ascending."""

    steps: list[int]
    values: list[float]

    @property
    def change(self) -> tuple[float, float] | None:
        """The first and the last value."""
        return (self.values[0], self.values[-1]) if self.values else None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    Attributes:
      name: for people; unique among the runs of a report.
      folder: of the run.
      config: config.json.
      metrics: rows of metrics.jsonl, oldest first.
      events: rows of events.jsonl, oldest first; empty for runs of older versions.
      responses: sampled responses that were recorded, oldest first.
      rollouts: number of recorded rollouts, of which `responses` may hold a part.
      damage: what could not be read, in words.
    """

    name: str
    folder: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    responses: list[Row] = field(default_factory=list)
    rollouts: int = 0
    damage: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[Row]:
        """The rows of a kind: train, eval, samples, generations, stop."""
        return self._by_kind.get(kind, [])

    def happened(self, kind: str) -> list[Row]:
        """The events of a kind: session, phase, message, memory, end."""
        return [row for row in self.events if row["kind"] == kind]

    def series(self, kind: str, name: str) -> Series:
        """A metric of the rows of a kind."""
        pairs = [(r["step"], r[name]) for r in self.of(kind) if _is_number(r.get(name))]
        return Series([step for step, _ in pairs], [float(value) for _, value in pairs])

    def names(self, kind: str) -> list[str]:
        """Every metric of a kind, in the order of the rows."""
        known = dict.fromkeys(n for row in self.of(kind) for n, x in row.items() if _is_number(x))
        return [name for name in known if name not in ("step", "time")]

    def option(self, dotted: str, default: Any = None) -> Any:
        """An option of the run, such as "optim.clip_norm"."""
        value: Any = self.config
        for name in dotted.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        return default if value is None else value

    @property
    def algorithm(self) -> str:
        return str(self.option("algorithm.name", "unknown"))

    @property
    def step(self) -> int:
        """The last step that was recorded."""
        return max((row["step"] for row in (*self.metrics, *self.events)), default=0)

    @property
    def steps(self) -> int:
        """Steps of the whole run; 0 if the record does not tell."""
        sessions = self.happened("session")
        return int(sessions[-1]["steps"] if sessions else self.option("steps", 0))

    @property
    def session(self) -> Row:
        """What the sessions recorded about themselves, the newest last; {} for older runs."""
        return {name: x for row in self.happened("session") for name, x in row.items()}

    @property
    def restarts(self) -> list[int]:
        """Steps after which later sessions went on."""
        return [int(row["start"]) for row in self.happened("session")[1:]]

    @property
    def last_time(self) -> float | None:
        """Seconds since 1970 when the record last grew."""
        times = [
            row["time"] for row in (*self.metrics, *self.events) if _is_number(row.get("time"))
        ]
        return max(times, default=None)

    @cached_property
    def _by_kind(self) -> dict[str, list[Row]]:
        rows: dict[str, list[Row]] = {}
        for row in self.metrics:
            rows.setdefault(row["kind"], []).append(row)
        return rows


def load(folder: str, name: str | None = None, *, responses: bool = True) -> RunRecord:
    """Read a run.

    Args:
      responses: whether to read recorded rollouts, too.

    Raises:
      ValueError: the folder has no config.json and no metrics.jsonl.
    """
    path = store.as_path(folder)
    damage: list[str] = []
    if not (path / CONFIG_FILE).is_file() and not (path / lines.FILE).is_file():
        raise ValueError(f"{folder} is no folder of a run that jalign train wrote")
    # parquet files of whole rollouts: a list of runs does not need them
    sampled, count = _responses(path / ROLLOUTS, damage) if responses else ([], 0)
    return RunRecord(
        name=name or path.name,
        folder=str(folder),
        config=_config(path / CONFIG_FILE, damage),
        metrics=_rows(path / lines.FILE, damage),
        events=_rows(path / lines.EVENTS, damage),
        responses=sampled,
        rollouts=count,
        damage=damage,
    )


def load_all(folders: Iterable[str]) -> list[RunRecord]:
    """Read several runs; those whose folders have the same name get the paths that differ.

    Raises:
      ValueError: one is no run, or is given twice.
    """
    # completion in a shell adds the slash
    paths = [folder.rstrip("/") for folder in folders]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{twice} is given twice")
    names = [store.as_path(path).name for path in paths]
    return [
        load(path, name if names.count(name) == 1 else path)
        for path, name in zip(paths, names, strict=True)
    ]


def _config(file: store.StorePath, damage: list[str]) -> dict[str, Any]:
    try:
        saved = json.loads(file.read_bytes())
    except FileNotFoundError:
        damage.append(f"{file.name} is missing: settings are not known")
        return {}
    except ValueError as error:
        damage.append(f"{file.name} is damaged ({error}): settings are not known")
        return {}
    return saved if isinstance(saved, dict) else {}


def _rows(file: store.StorePath, damage: list[str]) -> list[Row]:
    if not file.is_file():
        return []
    data = file.read_bytes()
    rows, damaged = lines.parse(data)
    if damaged:
        damage.append(f"{file.name}: {damaged} damaged lines are left out")
    if data and not data.endswith(b"\n"):
        damage.append(f"{file.name} ends in the middle of a line, which is left out")
    return list(rows)


def _responses(folder: store.StorePath, damage: list[str]) -> tuple[list[Row], int]:
    if not folder.is_dir() or not any(folder.glob("rollout-*.parquet")):
        return [], 0
    from jalign.rollout import record  # it imports jax

    files = record.files(folder)
    indices = sorted(files)
    if len(indices) > _MOST_ROLLOUTS:
        stride = (len(indices) - 1) / (_MOST_ROLLOUTS - 1)
        indices = [indices[round(i * stride)] for i in range(_MOST_ROLLOUTS)]
    rows: list[Row] = []
    for path in (path for number in indices for path in files[number]):
        try:
            rows += record.rows(path)
        except ValueError as error:
            damage.append(str(error))
    return rows, len(files)


def _is_number(x: object) -> bool:
    # JSON of other writers may hold NaN, which no axis has a place for
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
