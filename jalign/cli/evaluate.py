"""`jalign eval CONFIG|RUN [RUN ...]`: held-out metrics of an untrained model, or of runs; models
against each other with --judge, --human or --verdicts (`cli.arena`); benchmarks with --tasks.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import takewhile

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from jalign.cli.arena import arena, asks_for_arena
from jalign.cli.benchmark import benchmark
from jalign.cli.eval_tables import show
from jalign.config.read import option_names, read_options
from jalign.eval.evaluate import Evaluation
from jalign.eval.evaluate import evaluate as evaluate_one
from jalign.log import Display
from jalign.options import RunOptions
from jalign.run import folder as runs

CHANGES = ("data.", "mesh.", "rollout.", "reward.", "batch_size", "model.reference")
"""Options that may differ from the run's own."""


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--step", type=str | None, default=None, help=runs.STEP_HELP)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, name -> its metrics"
    )


def evaluate(args: Sequence[str], console: Console) -> None:
    """Print the metrics, as tables or as JSON."""
    if asks_for_arena(args):
        arena(args, console)
        return
    if "tasks" in option_names(args):
        benchmark(args, console)
        return
    as_json = "json" in option_names(args)
    display = Display(Console(stderr=True) if as_json else console)  # stdout is for the JSON alone
    evaluations = {evaluation.name: evaluation for evaluation in evaluations_of(args, display)}
    display.close()
    if as_json:
        print(json.dumps({name: x.to_json() for name, x in evaluations.items()}, indent=2))
    else:
        show(evaluations, console)


def evaluations_of(args: Sequence[str], display: Display) -> Iterator[Evaluation]:
    """One evaluation per run that is named first, or one of the model of a config."""
    names = list(takewhile(runs.is_run, args))
    rest = list(args[len(names) :])
    # no run: the first word, if any, is a config
    if not names:
        options, values = read_options(rest, "eval", add_options)
        if values.step is not None:
            raise ValueError("--step names a checkpoint of a run; name the run first")
        yield evaluate_one(options, display=display)
        return
    if rest and not rest[0].startswith("-"):
        raise ValueError(f"{rest[0]} is not a run directory of jalign train")
    for name in names:
        options, values = _options_of_run(name, rest)
        yield evaluate_one(name, step=values.step, options=options, display=display)


def _options_of_run(run: str, rest: Sequence[str]) -> tuple[RunOptions | None, Namespace]:
    """The run's options with the changes of the command line; None without any."""
    changes = [name for name in option_names(rest) if name not in ("step", "json", "help")]
    for name in changes:
        if not name.startswith(CHANGES):
            raise ValueError(
                f"a run is evaluated with its own options: leave out --{name}. What may differ: "
                + ", ".join(f"--{key}" + ("*" if key[-1] == "." else "") for key in CHANGES)
            )
    if "data.eval" in changes and "data.holdout" not in changes:
        rest = [*rest, "--data.holdout=null"]  # other held-out data replace the held-out fraction
    with runs.config_file(run) as file:
        options, values = read_options(
            ["--config", str(file), "--out", run, *rest], "eval", add_options
        )
    return (options if changes else None), values
