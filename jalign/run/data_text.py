"""What `jalign data` prints: the data of a config, or what was written."""

from functools import partial

from rich.console import Console

from jalign.data import report
from jalign.options import RunOptions
from jalign.run import convert
from jalign.run.preview import batch_lines, examples_with_warnings, split_lines


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
