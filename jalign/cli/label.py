"""`jalign label`: preference records by a judge."""

from collections.abc import Sequence

from rich.console import Console

from jalign.config.read import ConfigError, read_as
from jalign.feedback import label as feedback
from jalign.log.display import Display
from jalign.options import LabelConfig


def check_args(args: Sequence[str]) -> LabelConfig:
    """The options, checked as far as possible without loading a model."""
    options = read_as(LabelConfig, args, "label")
    try:
        feedback.check(options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return options


def label(args: Sequence[str], console: Console) -> None:
    """Write the rows."""
    feedback.label(check_args(args), Display(console))
