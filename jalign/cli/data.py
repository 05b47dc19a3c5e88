"""`jalign data CONFIG`: the data as the model will see it."""

from rich.console import Console

from jalign.cli import build
from jalign.config import Config
from jalign.data import report


def show(config: Config, console: Console) -> None:
    """Counts, lengths, what was dropped and why, and a few examples with scored tokens coloured."""
    tokenizer = build.tokenizer_of(config)
    train, held = build.examples_of(config, tokenizer)
    for name, examples in (("training data", train), ("held-out data", held)):
        if examples is not None:
            console.rule(name)
            report.render(examples, tokenizer, console)
