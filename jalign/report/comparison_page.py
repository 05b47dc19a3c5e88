"""What the page of several runs shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jalign.report import compare, samples
from jalign.report.alerts import alerts_of
from jalign.report.compare import Estimate, Group
from jalign.report.record import RunRecord
from jalign.report.scale import compact
from jalign.report.state import state_of
from jalign.report.svg import COLORS


def context(runs: Sequence[RunRecord]) -> Mapping[str, object]:
    """Values of page/comparison.html."""
    groups = compare.groups_of(runs)
    finals = compare.finals(groups)
    # more columns of text than three are too narrow to read
    shown = [(group.label, group.runs[0]) for group in groups[:3]]
    settings = compare.differing([group.runs[0] for group in groups])
    values: dict[str, Any] = {
        "title": _title(groups),
        "subtitle": _subtitle(runs, groups),
        "runs": _rows(groups),
        "settings": settings,
        "setting_names": [group.label for group in groups],
        "labels": [group.label for group in groups],
        "finals": [
            {"name": name, "cells": [cell(estimate) for estimate in estimates]}
            for name, estimates in finals.items()
        ],
        "finals_note": _finals_note(groups) + _unfinished(runs),
        "charts": compare.charts_of(groups),
        "curves_note": (
            "A line is the mean over seeds, its band their range; held-out metrics are dashed."
            if any(len(group.runs) > 1 for group in groups)
            else "Held-out metrics are dashed."
        ),
        "samples": samples.after_each(shown) if len(shown) > 1 else [],
        "samples_note": "The last texts of the first seed of each group."
        + (" Words that only one side has are marked." if len(shown) == 2 else ""),
        "damage": [f"{run.name}: {line}" for run in runs for line in run.damage],
    }
    parts = {
        "runs": "Runs",
        "settings": "Settings that differ",
        "finals": "After training",
        "curves": "Curves",
        "samples": "Samples",
    }
    # a link to a section that is not there would lead nowhere
    present = {"curves": "charts"}
    sections = [(key, name) for key, name in parts.items() if values[present.get(key, key)]]
    return values | {"sections": sections}


def _title(groups: Sequence[Group]) -> str:
    labels = " and ".join(group.label for group in groups)
    return labels if len(labels) < 70 else f"{len(groups)} groups of runs"


def _subtitle(runs: Sequence[RunRecord], groups: Sequence[Group]) -> str:
    algorithms = ", ".join(dict.fromkeys(run.algorithm for run in runs))
    seeds = " · runs that differ by the seed only are one group" if len(groups) < len(runs) else ""
    return f"{algorithms} · {len(runs)} runs{seeds}"


def _rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [
        {
            "first": run is group.runs[0],
            "group": group.label,
            "color": i % COLORS,
            "name": run.name,
            "algorithm": run.algorithm,
            "seed": run.option("seed", 0),
            "state": state_of(run).word,
            "step": run.step,
            "warnings": alerts_of(run),
        }
        for i, group in enumerate(groups)
        for run in group.runs
    ]


def cell(estimate: Estimate | None) -> dict[str, str]:
    """The text of an estimate, its value for sorting, and how its interval was made."""
    if estimate is None:
        return {"text": "", "key": "", "title": ""}
    text = compact(estimate.mean)
    if estimate.interval is not None:
        text += " [{}, {}]".format(*map(compact, estimate.interval))
    title = estimate.how
    if estimate.least < estimate.most:
        title += f"; runs from {compact(estimate.least)} to {compact(estimate.most)}"
    return {"text": text, "key": f"{estimate.mean:.6g}", "title": title}


def _finals_note(groups: Sequence[Group]) -> str:
    if any(len(group.runs) > 1 for group in groups):
        return (
            "The last value: mean over seeds and its 95 % interval by Student's t. An accuracy of "
            "one run has Wilson's interval over its held-out examples. Hover for the range."
        )
    return (
        "The last value. An accuracy has Wilson's 95 % interval over the held-out examples; other "
        "metrics need several seeds for one."
    )


def _unfinished(runs: Sequence[RunRecord]) -> str:
    short = [
        f"{run.name} ({run.step} of {run.steps} steps)" for run in runs if run.step < run.steps
    ]
    if not short:
        return ""
    return f" Not at their end: {', '.join(short)}; seeds are compared at the last step of all."
