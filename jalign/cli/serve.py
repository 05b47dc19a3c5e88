"""`jalign serve MODEL`: an OpenAI-compatible server."""

from collections.abc import Sequence

from rich.console import Console

from jalign.config.read import read_as
from jalign.options.serve import ServeConfig

WORDS = {"model": None}


def check_args(args: Sequence[str]) -> ServeConfig:
    """The options, checked as far as possible without loading a model."""
    return read_as(ServeConfig, args, "serve", WORDS)


def serve(args: Sequence[str], console: Console) -> None:
    """Serve until the process is told to stop."""
    from jalign.serve import server

    options = check_args(args)
    server.serve(
        options, lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
    )
