"""`jalign revise`: critiques and revisions of responses."""

from collections.abc import Sequence

from rich.console import Console

from jalign.config.read import ConfigError, read_as
from jalign.feedback import revise as feedback
from jalign.log.display import Display
from jalign.options import ReviseConfig


def check_args(args: Sequence[str]) -> ReviseConfig:
    """The options, checked as far as possible without loading a model."""
    options = read_as(ReviseConfig, args, "revise")
    try:
        feedback.check(options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return options


def revise(args: Sequence[str], console: Console) -> None:
    """Write the rows."""
    feedback.revise(check_args(args), Display(console))
