"""`jalign data CONFIG`: the data as the model will see it, or written as another kind."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.cli.data_text import save, show
from jalign.config.read import read_options
from jalign.run import convert


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        type=str | None,
        default=None,
        help="a kind of data, or an algorithm: write the training data as what it reads to --out "
        "FILE.jsonl or .jsonl.gz instead of showing them",
    )


def data(args: Sequence[str], console: Console) -> None:
    """Show the data of a config, or, with --to, write them."""
    options, values = read_options(args, "data", add_options)
    if values.to is None:
        show(options, console)
    else:
        save(options, values.to, console)


def check_args(args: Sequence[str]) -> None:
    """Raise ValueError unless the data are to be written, and as something that exists."""
    options, values = read_options(args, "data", add_options)
    if values.to is None:
        raise ValueError("set to: a kind of data, or an algorithm that will read them")
    convert.check(options, values.to)
