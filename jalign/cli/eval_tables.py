"""Evaluations as tables for a terminal."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign.eval.evaluate import Evaluation

_LABELS = {
    "pairwise_accuracy": "pairwise accuracy (a tie is half)",
    "calibration_error": "expected calibration error",
}


def show(evaluations: Mapping[str, Evaluation], console: Console) -> None:
    """One table of all numbers; calibration and subsets of reward models below it."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    table, columns = Table("metric"), []
    for name, evaluation in evaluations.items():
        step = evaluation.step
        prefix = "" if step is None else f"step {step} of "
        say(f"{prefix}{name}, {evaluation.examples} held-out examples")
        label = name if len(evaluations) > 1 else ""
        if evaluation.before:
            columns.append(evaluation.before)
            table.add_column(Text(f"{label} before".strip()), justify="right")
        columns.append(_scalars(evaluation.metrics))
        head = "value" if step is None else f"step {step}"
        table.add_column(Text(f"{label} {head}".strip()), justify="right")
    names = dict.fromkeys(n for x in evaluations.values() for n in _scalars(x.metrics))
    for name in names:  # + 0.0 turns -0.0 into 0.0
        cells = ("" if name not in c else f"{round(c[name], 5) + 0.0:.5f}" for c in columns)
        table.add_row(_LABELS.get(name, name), *cells)
    console.print(table)
    for name, evaluation in evaluations.items():
        if "calibration" in evaluation.metrics:
            _show_rewards(evaluation.metrics, console, name if len(evaluations) > 1 else "")


def _scalars(metrics: Mapping[str, Any]) -> Mapping[str, float]:
    scalars = {name: x for name, x in metrics.items() if isinstance(x, int | float)}
    kinds = metrics.get("length_correlation", {})
    return scalars | {f"correlation with length, {n.capitalize()}": x for n, x in kinds.items()}


def _show_rewards(metrics: Mapping[str, Any], console: Console, name: str) -> None:
    title = f"calibration {name}".strip()
    table = Table("confidence", "pairs", "mean confidence", "accuracy", title=Text(title))
    for bucket in metrics["calibration"]:
        means = [bucket["confidence"], bucket["accuracy"]] if bucket["pairs"] else []
        span = f"{bucket['low']:.2f}-{bucket['high']:.2f}"
        table.add_row(span, str(bucket["pairs"]), *(f"{x:.3f}" for x in means))
    console.print(table)
    if subsets := metrics.get("accuracy_by_source"):
        table = Table("source", "pairs", "accuracy")
        for source, subset in subsets.items():
            table.add_row(Text(source), str(subset["pairs"]), f"{subset['accuracy']:.5f}")
        console.print(table)
