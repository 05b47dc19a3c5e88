"""`jalign plan CONFIG --target NAME`: memory and speed on other hardware than this."""

import json
import re
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.config.read import option_names, read_options
from jalign.plan.compile import little_effort
from jalign.plan.run import plan_run
from jalign.plan.suggest import suggested_reports
from jalign.plan.targets import target


def add_options(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--target", type=str, required=True, help="v5e-16, 2xv5p-128, h100, 8xh100 ...")
    add("--json", type=str | None, default=None, help="write the report to this file too")
    add(
        "--exact",
        action="store_true",
        help="compile for a TPU with full effort, as the run does: minutes instead of seconds, "
        "memory a few per cent lower, and seconds by the compiler's own cycles",
    )
    add("--suggest", action="store_true", help="if it does not fit, try what would help")


def plan(args: Sequence[str], console: Console) -> int:
    """Print (and perhaps write) the report; 0 where it fits, 1 where it does not."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    words = [word for word in args[:1] if not word.startswith("-")]
    described = any(re.match(r"(config|algorithm|help)\b", name) for name in option_names(args))
    if not words and not described and "-h" not in args:
        say("no CONFIG and no --algorithm: DPO is planned")
        args = ["--algorithm", "dpo", *args]
    options, values = read_options(args, "plan", add_options)
    goal, name = target(values.target), Path(words[0] if words else "defaults").name
    # Little effort compiles minutes faster for a TPU, and plans a few percent more memory.
    quick = goal.platform == "tpu" and not values.exact
    with little_effort() if quick else nullcontext():
        report = plan_run(options, goal, name)
        for line in report.lines():
            say(line)
        tries = []
        for words_, other in suggested_reports(options, report) if values.suggest else ():
            tries.append(other.record() | {"change": words_})
            verdict = "fits" if other.fits else "does not fit"
            say(f"with {words_}: {verdict}, {max(other.peaks) / 2**30:.2f} GiB")
    if values.json:
        record = report.record() | ({"suggestions": tries} if values.suggest else {})
        Path(values.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    # an exit code, so that a launch script can stop here
    return 0 if report.fits else 1
