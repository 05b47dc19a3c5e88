"""`jalign doctor`: devices, kernels, versions and missing packages of this machine; with --model
whether a model is supported.
"""

import json
from collections.abc import Sequence

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from jalign import doctor as machine
from jalign.config.read import parsed
from jalign.models.config_json import support_of


def check_args(args: Sequence[str]) -> Namespace:
    """The options: `model`, a folder or hub name or None, and `json`."""
    parser = ArgumentParser(
        prog="jalign doctor",
        description="What this machine computes on, with which kernels, what is set in the "
        "environment, what is installed and what is missing. With --model: what of a model's "
        "config.json is supported.",
        exit_on_error=False,
    )
    parser.add_argument("--model", type=str | None, default=None, help="a folder or a hub name")
    parser.add_argument("--json", action="store_true", help="print {name: [fact, ...]} instead")
    return parsed(parser, args)


def doctor(args: Sequence[str], console: Console) -> int:
    """Print the report; 1 if the model does not load, else 0."""
    options = check_args(args)
    if options.model:
        support = support_of(options.model)
        lines, loads = support.lines(), not support.refusals
    else:
        lines, loads = machine.report(), True
    if options.json:
        # not by rich, which would wrap and color it
        print(json.dumps(machine.facts(lines), indent=1))
    else:
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0 if loads else 1
