"""Evaluate a checkpoint of a run, or an untrained model, on held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jalign.data.report import sentences
from jalign.eval import subject as subjects
from jalign.eval.examples import gives_rewards, make_example_step, make_kl_step, per_example
from jalign.eval.reward import reward_report
from jalign.eval.subject import Subject
from jalign.layout import MicroBatches
from jalign.log import Display
from jalign.models.functional import StandaloneModel, policy_of
from jalign.options import RunOptions
from jalign.run import data as build_data
from jalign.run import rollouts as build_online
from jalign.run.batches import reads_mismatched
from jalign.run.prompts import PromptTable
from jalign.run.rewards import compose
from jalign.train.step import make_eval_step

if TYPE_CHECKING:
    from jalign.checkpoint.manifest import Facts

Metrics = dict[str, Any]


class Evaluation(NamedTuple):
    """Held-out metrics and their origin.

    Attributes:
      name: name of the run or model.
      step: step of the checkpoint; None for the initial model of a config.
      examples: number of held-out examples.
      before: metrics that the run logged at step 0.
      metrics: metrics of the algorithm; for language models also `kl_to_start` in nats per scored
        held-out token (`kl_to_reference` for a model with a reference); for pairs with rewards also
        those of `eval.reward.reward_report`.
    """

    name: str
    step: int | None
    examples: int
    before: Mapping[str, float]
    metrics: Metrics

    def to_json(self) -> Facts:
        """JSON-serializable form; non-finite numbers become null."""
        facts = {"step": self.step, "examples": self.examples, "before": self.before or None}
        return facts | {"metrics": _finite(self.metrics)}


def evaluate(
    run: str | RunOptions,
    *,
    step: str | None = None,
    options: RunOptions | None = None,
    display: Display | None = None,
) -> Evaluation:
    """Evaluate on held-out data with the algorithm and reference of the run. An online algorithm
    samples responses to the held-out prompts. Nothing is written.

    Args:
      run: the folder of a run, or options whose initial model is evaluated.
      step: step of the checkpoint, or "best"; None is the newest.
      options: replace the run's own, e.g. for other held-out data.

    Raises:
      ValueError: no such run or checkpoint, or no held-out data.
    """
    display = display or Display()
    if isinstance(run, RunOptions):
        with display.phase("loading"):
            return evaluate_subject(subjects.of_options(run, display.say), display)
    with display.phase(f"loading {run}"):
        subject = subjects.of_run(run, step, options)
    return evaluate_subject(subject, display)


def evaluate_subject(subject: Subject, display: Display) -> Evaluation:
    """Compute every metric of one model."""
    algorithm = subject.options.algorithm
    for line in sentences(subject.held.report):
        display.say(f"held-out data: {line}")
    with jax.set_mesh(subject.mesh), display.phase(f"evaluating {subject.name}"):
        metrics: Metrics = (_online if algorithm.experience else _offline)(subject)
        if not algorithm.needs_value_head and not algorithm.experience:
            # a run is compared with its start, a model from a config with what it was trained from
            reference = subject.step is None and isinstance(subject.frozen.ref, StandaloneModel)
            metrics["kl_to_reference" if reference else "kl_to_start"] = _kl(subject, reference)
        if not algorithm.experience and gives_rewards(algorithm):
            metrics |= _rewards(subject)
    return Evaluation(subject.name, subject.step, len(subject.held), subject.before, metrics)


def _finite(x: Any) -> Any:
    if isinstance(x, dict):
        return {name: _finite(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [_finite(value) for value in x]
    # Python would write NaN, which is no JSON and which other readers refuse
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _offline(s: Subject) -> Metrics:
    step = jax.jit(make_eval_step(s.options.algorithm, s.model.apply))
    means = _summed(lambda data: step(s.state.params, s.frozen, s.state.carry, data), s)
    return {name: float(mean.shown) for name, mean in sorted(means.items())}


def _online(s: Subject) -> Metrics:
    """Rewards of responses to the held-out prompts."""
    row = s.options.algorithm
    reward = compose(s.options.reward, row, s.mesh, shared_base=s.model.shared_base)
    rows = build_data.held_rows(s.options)
    # rows as well as examples: rewards read columns that are not tokenized
    table = PromptTable(s.held, rows, s.model.tokenizer, row.data_kind)
    evaluator = build_online.evaluator_of(s.options, s.model, table, s.mesh, reward)
    return evaluator(s.state, s.frozen) or {}


def _kl(s: Subject, to_reference: bool) -> float:
    """KL(policy || reference), or KL(policy || initial model); 0 for an untrained model."""
    # KTO's batches hold a mismatched response after each response: it is not the policy's data.
    responses = 1 if reads_mismatched(s.options) else None
    step = jax.jit(make_kl_step(s.model.apply, responses))
    start = s.frozen.ref if to_reference else policy_of(s.model.params)
    return float(_summed(lambda data: step(s.state.params, s.frozen.base, start, data), s).shown)


def _rewards(s: Subject) -> Metrics:
    step = jax.jit(make_example_step(s.options.algorithm, s.model.apply))
    outputs = per_example(step, s.state.params, s.frozen, s.state.carry, s.batches())
    return reward_report(outputs, s.held.report.sources)


def _summed(means_of: Callable[[tuple[MicroBatches, ...]], Any], s: Subject) -> Any:
    """Sum the Means of all held-out batches: global means for any batch size."""
    total = None
    for data in s.batches():
        # sums of numerators and weights: the mean of batch means would weigh a small batch too much
        means = means_of(data)
        total = means if total is None else jax.tree.map(lambda a, b: a + b, total, means)
    return total
