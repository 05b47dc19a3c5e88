"""`jalign train CONFIG`: train, or resume."""

from collections.abc import Sequence

from rich.console import Console

from jalign.config.help import wanted
from jalign.config.read import read_config
from jalign.parallel import hosts
from jalign.run.run import Run


def train(args: Sequence[str], console: Console) -> int:
    """Run a config to its end; returns the exit code."""
    if not wanted(args):
        hosts.initialize()  # must come before anything that looks for devices
    return Run(read_config(args)).fit(console=console)
