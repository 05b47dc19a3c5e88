"""Several runs: groups of equal settings, what differs, bands over seeds, intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from jalign.log.trackers.tags import flat
from jalign.report.charts import HIDDEN, PANELS
from jalign.report.record import RunRecord
from jalign.report.svg import COLORS, Chart, Line

# where a run is kept, how often it looks, and what makes seeds of the same settings
_NOT_SETTINGS = ("seed", "out", "data.date")
_SHARES = ("accuracies", "clipped_ratio", "distinct_2")
_QUIET = ("log.", "checkpoint.", "log_every", "mesh.", "rollout.record", "sample.")


class Group(NamedTuple):
    """Runs whose settings differ by the seed only.

    Attributes:
      label: the values of the settings that differ between groups.
    """

    label: str
    runs: list[RunRecord]


class Estimate(NamedTuple):
    """A metric after training.

    Attributes:
      mean: over runs.
      interval: of 95 % confidence; None if there is none.
      how: the interval was made: "t over 3 seeds", or "Wilson, 64 examples".
      least, most: over runs.
    """

    mean: float
    interval: tuple[float, float] | None
    how: str
    least: float
    most: float


def settings_of(run: RunRecord) -> dict[str, str]:
    """Every setting by its dotted name, but those that say where and how a run is kept."""
    settings = {name: _shown(x) for name, x in flat(run.config).items()}
    return {name: x for name, x in settings.items() if name not in _NOT_SETTINGS}


def differing(runs: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Setting -> its value in every run, of the settings that differ."""
    tables = [settings_of(run) for run in runs]
    names = dict.fromkeys(name for table in tables for name in table)
    columns = {name: [table.get(name, "") for table in tables] for name in names}
    return {name: values for name, values in columns.items() if len(set(values)) > 1}


def groups_of(runs: Sequence[RunRecord]) -> list[Group]:
    """The runs by their settings, in the order in which these first occur."""
    differences = {n: x for n, x in differing(runs).items() if not n.startswith(_QUIET)}
    # what is only kept or shown differently does not make another group
    keys = [tuple(values[i] for values in differences.values()) for i in range(len(runs))]
    by_key: dict[tuple[str, ...], list[RunRecord]] = {}
    for key, run in zip(keys, runs, strict=True):
        by_key.setdefault(key, []).append(run)
    groups = []
    for key, members in by_key.items():
        names = [name.rpartition(".")[2] for name in differences]
        label = ", ".join(f"{n} {x}" for n, x in list(zip(names, key, strict=True))[:3])
        # a legend has no room for many settings: the table has them
        if not label or len(differences) > 3 or len(by_key) == len(runs) > 6:
            label = members[0].name if len(members) == 1 else f"{members[0].name} and seeds"
        groups.append(Group(label, members))
    return groups


def charts_of(groups: Sequence[Group]) -> list[Chart]:
    """A chart per metric: a line per group in training, and a dashed one on held-out data."""
    charts = []
    for panel in PANELS:
        for name, label in panel.metrics.items():
            lines = [
                line
                for i, group in enumerate(groups)
                for kind in panel.kinds
                if (line := _band(group, kind, name, i % COLORS))
            ]
            if lines:
                several = len(panel.metrics) > 1
                title = f"{panel.title}: {label}" if several else panel.title
                charts.append(
                    Chart(title=title, unit=panel.unit, note=panel.note, lines=lines, log=panel.log)
                )
    return charts


def finals(groups: Sequence[Group]) -> dict[str, list[Estimate | None]]:
    """Metric -> its estimate in every group, held-out metrics first."""
    table: dict[str, list[Estimate | None]] = {}
    rank = {name: i for i, name in enumerate(n for panel in PANELS for n in panel.metrics)}
    for kind in ("eval", "samples", "train"):
        names = {n for g in groups for run in g.runs for n in run.names(kind)} - HIDDEN
        for name in sorted(names - {"learning_rate"}, key=lambda n: (rank.get(n, len(rank)), n)):
            # the same metric of training data says less
            if kind == "train" and f"held-out {name}" in table:
                continue
            key = f"held-out {name}" if kind == "eval" else name
            table[key] = [_estimate(group, kind, name) for group in groups]
    return table


def _estimate(group: Group, kind: str, name: str) -> Estimate | None:
    columns = _columns(group, kind, name)
    if not columns:
        return None
    # a seed that was stopped, or is under way, is compared at the last step that all have
    shared = set.intersection(*map(set, columns))
    at = max(shared) if shared else None
    values = [column[max(column) if at is None else at] for column in columns]
    mean, n = sum(values) / len(values), len(values)
    if n > 1:
        from scipy import stats  # takes seconds to import, and most reports do not need it

        spread = math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1))
        half = float(stats.t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
        interval = (mean - half, mean + half)
        if name.endswith(_SHARES):
            interval = (max(interval[0], 0.0), min(interval[1], 1.0))
        return Estimate(mean, interval, f"Student's t, {n} seeds", min(values), max(values))
    examples = _held_out_examples(group.runs[0])
    if kind == "eval" and name.endswith("accuracies") and examples and 0 <= mean <= 1:
        from jalign.eval.metrics import wilson

        _, low, high = wilson(mean * examples, examples)
        return Estimate(mean, (low, high), f"Wilson, {examples} examples", mean, mean)
    return Estimate(mean, None, "one run", mean, mean)


def _held_out_examples(run: RunRecord) -> int:
    return int(run.session.get("data", {}).get("held out", 0))


def _band(group: Group, kind: str, name: str, color: int) -> Line | None:
    """The mean over the runs of a group, and their range, at the steps that any has."""
    columns = _columns(group, kind, name)
    steps = sorted({step for column in columns for step in column})
    if not steps:
        return None
    values = [[column[step] for column in columns if step in column] for step in steps]
    held_out = kind in ("eval", "samples")
    return Line(
        label=f"{group.label}, held out" if kind == "eval" else group.label,
        steps=steps,
        values=[sum(x) / len(x) for x in values],
        color=color,
        held_out=held_out,
        low=[min(x) for x in values] if len(columns) > 1 else (),
        high=[max(x) for x in values] if len(columns) > 1 else (),
    )


def _columns(group: Group, kind: str, name: str) -> list[dict[int, float]]:
    """Step -> value, of each run that has the metric."""
    columns = (dict(zip(*run.series(kind, name), strict=True)) for run in group.runs)
    return [column for column in columns if column]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
