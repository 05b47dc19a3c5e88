"""`jalign doctor`: devices, kernels, versions and missing packages of this machine."""

import json
from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign import doctor as machine
from jalign.config.read import parsed


def doctor(args: Sequence[str], console: Console) -> None:
    """Print the report."""
    parser = ArgumentParser(
        prog="jalign doctor",
        description="What this machine computes on, with which kernels, what is set in the "
        "environment, what is installed and what is missing.",
        exit_on_error=False,
    )
    parser.add_argument("--json", action="store_true", help="print {name: [fact, ...]} instead")
    if parsed(parser, args).json:
        # not by rich, which would wrap and color it
        print(json.dumps(machine.facts(), indent=1))
        return
    for line in machine.report():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
