"""Scores of a model on tasks of lm_eval, and their differences to those of its start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from jalign.eval.load import load_model
from jalign.eval.metrics import Estimate, bootstrap, score_change
from jalign.log import Display
from jalign.options import BenchmarkConfig
from jalign.run.policy import Policy

Task = str | Mapping[str, Any]


class TaskScore(NamedTuple):
    """One metric of one task.

    Attributes:
      task, metric: as lm_eval calls them; the name of a filter follows a comma.
      estimate: with its 95 % interval over examples, which is empty where `values` is.
      values: of the examples; empty where the metric is no mean of them.
      start: the value of the model that this one is compared with; None without one.
      change: from there, with a paired 95 % interval; None where `values` is empty.
    """

    task: str
    metric: str
    estimate: Estimate
    values: tuple[float, ...]
    start: float | None = None
    change: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the values of the examples."""
        facts: dict[str, Any] = {"task": self.task, "metric": self.metric}
        facts |= {**self.estimate._asdict(), "examples": len(self.values)}
        if self.start is not None:
            change = None if self.change is None else self.change._asdict()
            facts |= {"start": self.start, "change": change}
        return facts


def benchmark(
    model: str | Policy,
    tasks: Sequence[Task],
    *,
    against: str | Policy | None = None,
    display: Display | None = None,
    **options: Any,
) -> list[TaskScore]:
    """Scores of a model on tasks of lm_eval; needs the extra `eval`.

    Args:
      model: run, folder, adapter, hub name or embedded; or a policy.
      tasks: names, also of groups and with wildcards; or configs, as lm_eval reads them from YAML.
      against: what the model was trained from: changes of its scores show what was forgotten.
      options: further fields of `BenchmarkConfig`.

    Raises:
      ImportError: lm_eval is not installed.
      ValueError: an unknown task, or an option that a task or the model does not have.

    >>> benchmark("runs/dpo", ["truthfulqa_mc1"], against="embedded")  # doctest: +SKIP
    """
    names = [task if isinstance(task, str) else task["task"] for task in tasks]
    label = model if isinstance(model, str) else model.path
    config = BenchmarkConfig(model=label, tasks=names, **options)
    return run_benchmark(config, display or Display(), model=model, tasks=tasks, against=against)


def run_benchmark(
    options: BenchmarkConfig,
    display: Display,
    *,
    model: str | Policy | None = None,
    tasks: Sequence[Task] | None = None,
    against: str | Policy | None = None,
) -> list[TaskScore]:
    """`benchmark` of its options; objects in memory replace what they name."""
    if find_spec("lm_eval") is None:
        raise ImportError("benchmarks need lm_eval: pip install 'jalign[eval]'")
    from jalign.eval.benchmarks import harness

    tasks = tasks or options.tasks
    # before a model is loaded: a misspelled task must not cost minutes
    manager = harness.task_manager(tasks, options.include_path)
    models = {"scores": model or options.model, "start": against or options.against}
    scores = {}
    for role, given in models.items():
        if given is None:
            continue
        label = given if isinstance(given, str) else given.path
        with display.phase(f"loading {label}"):
            policy = load_model(given) if isinstance(given, str) else given
        with display.phase(f"{label} answers {', '.join(options.tasks)}"):
            results = harness.evaluate(policy, tasks, manager, options)
        if options.out:
            harness.write(results, Path(options.out).expanduser(), role)
        scores[role] = scores_of(results)
    return changes(scores["scores"], scores["start"]) if "start" in scores else scores["scores"]


def scores_of(results: Mapping[str, Any]) -> list[TaskScore]:
    """The metrics in what `lm_eval.simple_evaluate` returns, groups included."""
    scores = []
    for task, row in (results.get("groups") or {} | results["results"]).items():
        for name, value in row.items():
            if "_stderr" in name or not isinstance(value, int | float) or name in ("sample_len",):
                continue
            metric, _, filter_name = name.partition(",")
            values = _values(results["samples"].get(task, ()), metric, filter_name)
            # some metrics are no means: a perplexity, a correlation
            mean = bool(values) and abs(sum(values) / len(values) - value) < 1e-9
            estimate = bootstrap(values) if mean else Estimate(float(value), *[float("nan")] * 2)
            shown = metric if filter_name in ("none", "") else f"{metric}, {filter_name}"
            scores.append(TaskScore(task, shown, estimate, tuple(values) if mean else ()))
    return scores


def _values(samples: Sequence[Mapping[str, Any]], metric: str, filter_name: str) -> list[float]:
    """The values of a metric by example; those of an example with several (IFEval's instructions)
    one after the other.
    """
    out: list[float] = []
    for sample in samples:
        if metric in sample and sample["filter"] == (filter_name or "none"):
            value = sample[metric]
            many = value if isinstance(value, list) else [value]
            if not all(isinstance(x, int | float) for x in many):
                return []
            out += map(float, many)
    return out


def changes(after: Sequence[TaskScore], before: Sequence[TaskScore]) -> list[TaskScore]:
    """The scores of `after`, with their changes since `before` on the same examples."""
    earlier = {(score.task, score.metric): score for score in before}
    out = []
    for score in after:
        start = earlier[score.task, score.metric]
        change = None
        if score.values and len(score.values) == len(start.values):
            change = score_change(start.values, score.values).change
        out.append(score._replace(start=start.estimate.value, change=change))
    return out
