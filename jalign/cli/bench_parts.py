"""`jalign bench parts`: named commands within a time budget; resumable, one JSON and one table."""

import signal
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.bench.parts import Part, missing, read, run
from jalign.config.read import parsed


def bench_parts(args: Sequence[str], console: Console) -> int:
    """Run the parts; 0 where all have ended well, in this call or an earlier one, else 1."""
    parser = ArgumentParser(
        prog="jalign bench parts",
        description="Run commands one after another. OUT gets check.json, check.md and check.log; "
        "the same command goes on with the parts that are missing or failed.",
        exit_on_error=False,
    )
    parser.add_argument("--out", type=str, required=True, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=540.0, help="of the whole call")
    parser.add_argument("parts", nargs="+", help="'NAME SECONDS COMMAND ...', by value")
    values = parsed(parser, args)
    parts, folder = [Part.of(line) for line in values.parts], Path(values.out)
    # as Ctrl-C: the part under way is stopped, so that nothing keeps the device
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for part, result in run(parts, folder, values.seconds):
        line = f"{part.name}: {result['status']} after {result['seconds']} s"
        console.print(line, markup=False, highlight=False)
    table = folder / "check.md"
    if table.exists():
        console.print(table.read_text(), markup=False, highlight=False, soft_wrap=True)
    left = missing(parts, read(folder))
    if left:
        names = ", ".join(part.name for part in left)
        console.print(f"not ended well: {names}", markup=False, highlight=False, soft_wrap=True)
    return 1 if left else 0
