"""`jalign eval CONFIG|RUN [RUN ...]`: held-out metrics of a model as it is, or of runs."""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign.config import help as config_help
from jalign.config import read
from jalign.data.report import sentences
from jalign.eval import subject as eval_subject
from jalign.eval.examples import gives_rewards, make_example_step, make_kl_step, per_example
from jalign.eval.reward import reward_report
from jalign.eval.subject import Subject
from jalign.layout import MicroBatches
from jalign.log import Display
from jalign.models.functional import StandaloneModel, policy_of
from jalign.run import data as build_data
from jalign.run import folder as runs
from jalign.run import rollouts as build_online
from jalign.run.batches import reads_mismatched
from jalign.run.prompts import PromptTable
from jalign.run.rewards import compose
from jalign.train.step import make_eval_step

_SHORT = {
    "pairwise_accuracy": "pairwise accuracy (a tie is half)",
    "calibration_error": "expected calibration error",
}


def parser() -> ArgumentParser:
    """The options of `jalign eval`: those of a config, and its own."""
    result = read.parser("eval")
    result.add_argument("--step", type=str | None, default=None, help=runs.STEP_HELP)
    result.add_argument(
        "--json", action="store_true", help="print one JSON object, name -> its metrics"
    )
    return result


def evaluate(args: Sequence[str], console: Console) -> dict[str, Any]:
    """The metrics of the held-out data under the config's algorithm; its reference is that of the
    run. An online algorithm answers the held-out prompts. Nothing is written.

    Returns:
      Every metric by its name; of language models `kl_to_start`, nats per scored token of the
      held-out data (`kl_to_reference` of a model that a config names together with a reference);
      of pairs with rewards what `eval.reward.reward_report` returns. Of several runs a dictionary
      of that by run.
    """
    if config_help.wanted(args):
        print(config_help.text(parser(), list(args), None))
        return {}
    names, step, as_json, rest = _words(args)
    display = Display(Console(stderr=True) if as_json else console)
    found = {}
    with display.phase("loading"):
        if not names:
            only = eval_subject.of_config(rest, display.say)
            found[only.what] = (only, _evaluated(only, display))
    for name in names:
        with display.phase(f"loading {name}"):
            subject = eval_subject.of_run(name, step, rest)
        found[name] = (subject, _evaluated(subject, display))
    display.close()
    if as_json:
        print(json.dumps({name: _plain(*one) for name, one in found.items()}, indent=2))
    else:
        _show(found, console)
    results = [metrics for _, metrics in found.values()]
    return results[0] if len(results) == 1 else {n: m for n, (_, m) in found.items()}


def _words(args: Sequence[str]) -> tuple[list[str], str | None, bool, list[str]]:
    """Runs, --step, --json, and all the rest."""
    words, names, step, rest = list(args), [], None, []
    while words and runs.is_run(words[0]):
        names.append(words.pop(0))
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name != "--step" or not (equals or words):
            rest.append(word)
        else:
            step = value if equals else words.pop(0)
    if step is not None and not names:
        raise ValueError("--step chooses a checkpoint of a run, and no run is named")
    if names and rest and not rest[0].startswith("-"):
        raise ValueError(f"{rest[0]} is no folder of a run that jalign train wrote")
    return names, step, as_json, rest


def _evaluated(subject: Subject, display: Display) -> dict[str, Any]:
    """Every metric of one subject."""
    algorithm = subject.options.algorithm
    for line in sentences(subject.held.report):
        display.say(f"held-out data: {line}")
    with jax.set_mesh(subject.mesh), display.phase(f"evaluating {subject.what}"):
        metrics: dict[str, Any] = (_answers if algorithm.experience else _metrics)(subject)
        if not algorithm.needs_value_head and not algorithm.experience:
            asked = subject.step is None and isinstance(subject.frozen.ref, StandaloneModel)
            metrics["kl_to_reference" if asked else "kl_to_start"] = _kl(subject, asked)
        pairs = not algorithm.experience and gives_rewards(algorithm)
        return metrics | (_rewards(subject) if pairs else {})


def _plain(subject: Subject, metrics: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold: a number that is not finite is null."""

    def finite(x: Any) -> Any:
        if isinstance(x, dict):
            return {name: finite(value) for name, value in x.items()}
        if isinstance(x, list | tuple):
            return [finite(value) for value in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    facts = {"step": subject.step, "examples": len(subject.held), "before": subject.before or None}
    return facts | {"metrics": finite(metrics)}


def _show(found: dict[str, tuple[Subject, dict[str, Any]]], console: Console) -> None:
    """One table of all numbers; what is no number below it, subject by subject."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    table, columns = Table("metric"), []
    for name, (subject, metrics) in found.items():
        at = "" if subject.step is None else f"step {subject.step} of "
        say(f"{at}{name}, {len(subject.held)} held-out examples")
        short = name if len(found) > 1 else ""
        if subject.before:
            columns.append(subject.before)
            table.add_column(Text(f"{short} before".strip()), justify="right")
        columns.append(_numbers(metrics))
        step = "value" if subject.step is None else f"step {subject.step}"
        table.add_column(Text(f"{short} {step}".strip()), justify="right")
    known = dict.fromkeys(name for _, metrics in found.values() for name in _numbers(metrics))
    for name in known:
        cells = ("" if name not in c else f"{round(c[name], 5) + 0.0:.5f}" for c in columns)
        table.add_row(_SHORT.get(name, name), *cells)  # no -0.00000
    console.print(table)
    for name, (_, metrics) in found.items():
        if "calibration" in metrics:
            _print_rewards(metrics, console, name if len(found) > 1 else "")


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Those that are one number each."""
    plain = {name: x for name, x in metrics.items() if isinstance(x, int | float)}
    kinds = metrics.get("length_correlation", {})
    return plain | {f"correlation with length, {n.capitalize()}": x for n, x in kinds.items()}


def _metrics(s: Subject) -> dict[str, Any]:
    step = jax.jit(make_eval_step(s.options.algorithm, s.model.apply))
    means = _summed(lambda data: step(s.state.params, s.frozen, s.state.carry, data), s)
    return {name: float(mean.shown) for name, mean in sorted(means.items())}


def _answers(s: Subject) -> dict[str, Any]:
    """Of an online algorithm: the rewards of answers to the held-out prompts."""
    row = s.options.algorithm
    reward = compose(s.options.reward, row, s.mesh, shared_base=s.model.shared_base)
    rows, kind = build_data.held_rows(s.options), row.data_kind
    table = PromptTable(s.held, rows, s.model.tokenizer, kind)
    evaluate = build_online.evaluator_of(s.options, s.model, table, s.mesh, reward)
    return evaluate(s.state, s.frozen) or {}


def _kl(s: Subject, to_reference: bool) -> float:
    """KL(policy || its reference, or the model that the run started from): the second is 0 of one
    that is not trained.
    """
    own = 1 if reads_mismatched(s.options) else None
    step = jax.jit(make_kl_step(s.model.apply, own))
    start = s.frozen.ref if to_reference else policy_of(s.model.params)
    return float(_summed(lambda data: step(s.state.params, s.frozen.base, start, data), s).shown)


def _rewards(s: Subject) -> dict[str, Any]:
    step = jax.jit(make_example_step(s.options.algorithm, s.model.apply))
    outputs = per_example(step, s.state.params, s.frozen, s.state.carry, s.batches())
    return reward_report(outputs, s.held.report.sources)


def _summed(means_of: Callable[[tuple[MicroBatches, ...]], Any], s: Subject) -> Any:
    """The Means of all held-out data."""
    total = None
    for data in s.batches():
        means = means_of(data)
        total = means if total is None else jax.tree.map(lambda a, b: a + b, total, means)
    return total


def _print_rewards(metrics: dict[str, Any], console: Console, name: str) -> None:
    title = f"calibration {name}".strip()
    table = Table("confidence", "pairs", "mean confidence", "accuracy", title=Text(title))
    for bucket in metrics["calibration"]:
        numbers = [bucket["confidence"], bucket["accuracy"]] if bucket["pairs"] else []
        span = f"{bucket['low']:.2f}-{bucket['high']:.2f}"
        table.add_row(span, str(bucket["pairs"]), *(f"{x:.3f}" for x in numbers))
    console.print(table)
    if subsets := metrics.get("accuracy_by_source"):
        table = Table("source", "pairs", "accuracy")
        for source, subset in subsets.items():
            table.add_row(Text(source), str(subset["pairs"]), f"{subset['accuracy']:.5f}")
        console.print(table)
