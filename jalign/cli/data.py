"""`jalign data CONFIG`: the data as the model will see it, or written as another kind."""

from collections.abc import Sequence
from functools import partial

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.config.read import read_options
from jalign.data import report
from jalign.options import RunOptions
from jalign.run import convert
from jalign.run.preview import batch_lines, examples_with_warnings, split_lines


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


def show(options: RunOptions, console: Console) -> None:
    """Counts, lengths, drops, a few examples with scored tokens colored, and the batches."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    train, held, tokenizer = examples_with_warnings(options)
    for line in split_lines(options):
        say(line)
    for name, examples in (("training data", train), ("held-out data", held)):
        if examples is not None:
            console.rule(name)
            report.render(examples, tokenizer, console)
    console.rule("batches")
    for line in batch_lines(options, train):
        console.print(line, highlight=False)


def save(options: RunOptions, to: str, console: Console) -> None:
    """Write the training data to --out, and show what was dropped."""
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    count, facts = convert.convert(options, to)
    say(facts.explanation)
    for reason, dropped in sorted(facts.dropped.items()):
        say(f"dropped: {dropped} {reason}")
    for warning in facts.warnings:
        say(f"warning: {warning}")
    say(f"{count} rows of {facts.kind} data written to {options.out}")
