"""`jalign eval CONFIG|RUN [--step STEP]`: the held-out metrics of a model as it is, or of a run's
newest (or a given) checkpoint.
"""

import logging
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign.cli import build, build_data, build_online, check_tokens, runs
from jalign.cli.build_reward import reward_of
from jalign.cli.read import read_config
from jalign.cli.reward_parts import Texts
from jalign.config import Config
from jalign.core import Frozen, Parts, TrainState
from jalign.data.examples import Examples
from jalign.eval.examples import gives_rewards, make_example_step, make_kl_step, per_example
from jalign.eval.reward import reward_report
from jalign.models.functional import policy_of
from jalign.train.step import make_eval_step, with_reference

LOG = logging.getLogger(__name__)


@dataclass
class Subject:
    """What is evaluated: a state, where it started (`model.params`), and what it is asked about."""

    what: str
    config: Config
    mesh: Mesh
    model: build.Model
    state: TrainState
    frozen: Frozen
    held: Examples

    def batches(self) -> Iterator[tuple[Parts, ...]]:
        """Every held-out example once."""
        spec = self.model.decoder.spec
        return build.held_source_of(self.config, self.held, self.mesh, spec).eval_batches()


def evaluate(args: Sequence[str], console: Console) -> dict[str, Any]:
    """Metrics of the held-out data under the config's algorithm; its reference is that of the run.
    An online algorithm answers the held-out prompts.

    Returns:
      Every metric by its name; of language models `kl_to_start`, nats per scored token of the
      held-out data; of pairs with rewards what `eval.reward.reward_report` returns.
    """
    subject = _subject(args)
    algorithm = build.algorithm_of(subject.config)
    with jax.set_mesh(subject.mesh):
        metrics: dict[str, Any] = (_answers if algorithm.experience else _metrics)(subject)
        if not algorithm.needs_value_head and not algorithm.experience:
            metrics["kl_to_start"] = _kl_to_start(subject)
        pairs = not algorithm.experience and gives_rewards(algorithm, **subject.config.hyper)
        rewards = _rewards(subject) if pairs else {}
    heading = f"{subject.what}, {len(subject.held)} held-out examples"
    console.print(heading, markup=False, highlight=False, soft_wrap=True)
    table = Table("metric", "value")
    for name, value in metrics.items():
        table.add_row(name, f"{round(value, 5) + 0.0:.5f}")  # no -0.00000
    console.print(table)
    if rewards:
        _print_rewards(rewards, console)
    return metrics | rewards


def _subject(args: Sequence[str]) -> Subject:
    if args and runs.is_run(args[0]):
        parser = ArgumentParser(prog="jalign eval RUN", allow_abbrev=False)
        parser.add_argument("--step", default=None, help=runs.STEP_HELP)
        options, rest = parser.parse_known_args(args[1:])
        if rest:
            raise ValueError(f"a run is evaluated with its own config; leave out {' '.join(rest)}")
        config, model, state, step = runs.newest(args[0], runs.which(options.step))
        what = f"step {step} of {args[0]}"
        mesh = build.mesh_of(config)
    else:
        config = read_config(args, "eval")
        mesh = build.mesh_of(config)
        model = build.model_of(config, mesh, build.tokenizer_of(config))
        state, what = None, model.path
    optimizer, _ = config.optim.make(max(config.steps, config.optim.warmup_steps, 1))
    initial, frozen = build.state_of(config, model, mesh, optimizer)
    state = state or initial
    _, held = build_data.examples_of(config, model.tokenizer)
    if held is None:
        raise ValueError("there are no held-out data: set data.eval or data.holdout")
    for warning in check_tokens.check(config, model.tokenizer, None, held):
        LOG.warning("%s", warning)
    return Subject(what, config, mesh, model, state, with_reference(frozen, state), held)


def _metrics(s: Subject) -> dict[str, Any]:
    step = jax.jit(make_eval_step(build.algorithm_of(s.config), s.model.apply, **s.config.hyper))
    means = _summed(lambda data: step(s.state.params, s.frozen, s.state.carry, data), s)
    return {name: float(mean.shown) for name, mean in sorted(means.items())}


def _answers(s: Subject) -> dict[str, Any]:
    """Of an online algorithm: the rewards of answers to the held-out prompts."""
    reward = reward_of(s.config, s.mesh, s.model.bare)
    _, rows = build_data.all_rows(s.config)
    texts = Texts.of(s.config, s.held, rows, s.model.tokenizer)
    return build_online.answers_of(s.config, s.model, texts, s.mesh, reward)(s.state, s.frozen)


def _kl_to_start(s: Subject) -> float:
    """KL(policy || the model that the run started from): 0 of one that is not trained."""
    own = 1 if build.reads_mismatched(s.config) else None
    step = jax.jit(make_kl_step(s.model.apply, own))
    start = policy_of(s.model.params)
    return float(_summed(lambda data: step(s.state.params, s.frozen.base, start, data), s).shown)


def _rewards(s: Subject) -> dict[str, Any]:
    step = jax.jit(make_example_step(build.algorithm_of(s.config), s.model.apply, **s.config.hyper))
    outputs = per_example(step, s.state.params, s.frozen, s.state.carry, s.batches())
    return reward_report(outputs, s.held.report.sources)


def _summed(means_of: Callable[[tuple[Parts, ...]], Any], s: Subject) -> Any:
    """The Means of all held-out data."""
    total = None
    for data in s.batches():
        means = means_of(data)
        total = means if total is None else jax.tree.map(lambda a, b: a + b, total, means)
    return total


def _print_rewards(found: dict[str, Any], console: Console) -> None:
    correlation = found["length_correlation"]
    table = Table("rewards of pairs", "value")
    table.add_row("pairwise accuracy (a tie is half)", f"{found['pairwise_accuracy']:.5f}")
    table.add_row("expected calibration error", f"{found['calibration_error']:.5f}")
    table.add_row("correlation with length, Pearson", f"{correlation['pearson']:.5f}")
    table.add_row("correlation with length, Spearman", f"{correlation['spearman']:.5f}")
    console.print(table)
    table = Table("confidence", "pairs", "mean confidence", "accuracy", title="calibration")
    for bucket in found["calibration"]:
        numbers = [bucket["confidence"], bucket["accuracy"]] if bucket["pairs"] else []
        span = f"{bucket['low']:.2f}-{bucket['high']:.2f}"
        table.add_row(span, str(bucket["pairs"]), *(f"{x:.3f}" for x in numbers))
    console.print(table)
    if subsets := found.get("accuracy_by_source"):
        table = Table("source", "pairs", "accuracy")
        for name, subset in subsets.items():
            table.add_row(Text(name), str(subset["pairs"]), f"{subset['accuracy']:.5f}")
        console.print(table)
