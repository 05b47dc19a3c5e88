"""`jalign prompts`: new prompts by a model."""

from collections.abc import Sequence

from rich.console import Console

from jalign.config.read import ConfigError, read_as
from jalign.feedback import prompts as feedback
from jalign.log.display import Display
from jalign.options import PromptsConfig


def check_args(args: Sequence[str]) -> PromptsConfig:
    """The options, checked as far as possible without loading a model."""
    options = read_as(PromptsConfig, args, "prompts")
    try:
        feedback.check(options)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return options


def prompts(args: Sequence[str], console: Console) -> None:
    """Write the rows."""
    feedback.prompts(check_args(args), Display(console))
