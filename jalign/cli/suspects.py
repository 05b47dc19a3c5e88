"""`jalign data --suspects RUN`: which labels look wrong, by the margins of a trained run."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.config.read import parsed
from jalign.data.write import check_name, write
from jalign.eval.suspects import suspects
from jalign.eval.suspects_table import show


def print_suspects(args: Sequence[str], console: Console) -> None:
    """Print how many labels of a run look wrong and the most doubtful; write all, ranked."""
    parser = ArgumentParser("jalign data --suspects", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--suspects", required=True, metavar="RUN", help="of pairs or labels")
    parser.add_argument("--rows", type=str | None, default=None, help="other data than the run's")
    parser.add_argument("--step", type=str | None, default=None, help="of a checkpoint, or best")
    parser.add_argument("--top", type=int, default=10, help="how many to print")
    parser.add_argument("--out", default="suspects.jsonl", help="FILE.jsonl or .jsonl.gz")
    options = parsed(parser, args)
    check_name(options.out)
    result = suspects(options.suspects, step=options.step, data=options.rows)
    show(result, options.top, console)
    write(options.out, result.rows)
    console.print(f"{len(result.rows):,} rows, the most doubtful first: {options.out}")
