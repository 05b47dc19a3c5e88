"""`jalign data CONFIG`: the data as the model will see it, or written as another kind; which labels
look wrong with --suspects RUN (`cli.suspects`).
"""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.cli.suspects import print_suspects
from jalign.config.read import option_names, read_options
from jalign.run import convert
from jalign.run.data_text import save, show


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        type=str | None,
        default=None,
        help="a kind of data, or an algorithm: write the training data as what it reads to --out "
        "FILE.jsonl or .jsonl.gz instead of showing them",
    )
    about = "a run: print how many of its labels look wrong; write them, ranked, to --out FILE"
    parser.add_argument("--suspects", type=str | None, default=None, help=about)


def data(args: Sequence[str], console: Console) -> None:
    """Show the data of a config, or, with --to, write them."""
    if "suspects" in option_names(args):
        print_suspects(args, console)
        return
    long = {"--flip": "--data.flip", "--share": "--data.flip_share"}
    args = ["".join([long.get(n, n), *rest]) for n, *rest in (a.partition("=") for a in args)]
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
