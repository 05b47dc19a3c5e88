"""`jalign export RUN OUT`: a run's model as a Hugging Face folder."""

from collections.abc import Sequence

from rich.console import Console

from jalign.config.read import read_as
from jalign.options.export import ExportConfig
from jalign.run.export.write import check_out
from jalign.run.export.write import export as write

WORDS = {"run": None, "out": None}


def check_args(args: Sequence[str]) -> ExportConfig:
    """The options, checked as far as possible without loading a model."""
    options = read_as(ExportConfig, args, "export", WORDS)
    check_out(options)
    return options


def export(args: Sequence[str], console: Console) -> None:
    """Write the folder."""
    for line in write(check_args(args)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
