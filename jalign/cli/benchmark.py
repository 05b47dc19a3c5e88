"""`jalign eval MODEL --tasks ...`: scores on tasks of lm_eval."""

import json
import math
from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jalign.config.read import read_as
from jalign.eval.benchmarks.benchmarks import run_benchmark
from jalign.log import Display
from jalign.options import BenchmarkConfig


def read_benchmark(args: Sequence[str]) -> BenchmarkConfig:
    """The options, checked as far as possible without loading a model."""
    return read_as(BenchmarkConfig, args, "eval", {"model": None})


def benchmark(args: Sequence[str], console: Console) -> None:
    """Print the scores, as a table or as JSON."""
    as_json = "--json" in args
    options = read_benchmark([arg for arg in args if arg != "--json"])
    display = Display(Console(stderr=True) if as_json else console)  # stdout is for the JSON alone
    scores = run_benchmark(options, display)
    display.close()
    if as_json:
        print(json.dumps([score.to_json() for score in scores], indent=2))
        return
    heads = ["score", *(["start", "change"] if options.against else []), "n"]
    table = Table("task", "metric", box=SIMPLE, title=Text("in brackets 95 % intervals"))
    for head in heads:
        table.add_column(head, justify="right")
    for score in scores:
        row = [Text(score.task), Text(score.metric), _interval(score.estimate)]
        if score.start is not None:
            row += [f"{score.start:.3f}", "" if score.change is None else _interval(score.change)]
        table.add_row(*row, str(len(score.values) or ""))
    console.print(table)


def _interval(x: tuple[float, float, float]) -> str:
    value, low, high = x
    return f"{value:.3f}" + ("" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]")
