"""`jalign train CONFIG`: train, or resume."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.config.help import wanted
from jalign.config.read import read_options
from jalign.parallel import hosts
from jalign.run.run import Run


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--profile",
        type=str | None,
        default=None,
        help="steps to trace for xprof, such as 12 or 12-14; RUN/profile gets the trace",
    )


def train(args: Sequence[str], console: Console) -> int:
    """Run a config to its end; returns the exit code."""
    if not wanted(args):
        hosts.initialize()  # must come before anything that looks for devices
    options, values = read_options(args, "train", add_options)
    return Run(options).fit(profile=values.profile, console=console)
