"""`jalign merge OUT --base MODEL --models A B ...`: several models of one base become one."""

from collections.abc import Sequence
from functools import partial

from rich.console import Console

from jalign.config.read import read_as
from jalign.options.merge import MergeConfig
from jalign.run.merge.write import check_out
from jalign.run.merge.write import merge as write

WORDS = {"out": None}


def check_args(args: Sequence[str]) -> MergeConfig:
    """The options, checked as far as possible without loading a model."""
    options = read_as(MergeConfig, args, "merge", WORDS)
    check_out(options)
    return options


def merge(args: Sequence[str], console: Console) -> None:
    """Write the merged model."""
    write(check_args(args), partial(console.print, markup=False, highlight=False, soft_wrap=True))
