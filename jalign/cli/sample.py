"""`jalign sample MODEL [PROMPT ...]`: continuations, to the terminal or to a file."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from jalign.config.read import read_as
from jalign.options.generate import GenerateConfig
from jalign.rewards.label import text_of
from jalign.run.generate import Generation, check_model

WORDS = {"model": None, "prompts": "*"}


def check_args(args: Sequence[str]) -> GenerateConfig:
    """The options, checked as far as possible without loading a model."""
    options = read_as(GenerateConfig, args, "sample", WORDS)
    check_model(options)
    return options


def sample(args: Sequence[str], console: Console) -> None:
    """Print continuations, or write them with --out."""
    options = read_as(GenerateConfig, args, "sample", WORDS)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    generation = Generation.of(options, say)
    if generation.note:  # stdout carries the answers, which may go into a pipe
        Console(stderr=True).print(generation.note, markup=False, highlight=False, soft_wrap=True)
    if generation.warning:
        say(f"warning: {generation.warning}")
    if options.out:
        count = sum(len(row["responses"]) for row in generation.write(say))
        say(f"{count} continuations written to {options.out}")
        return
    for row in generation():
        for text in _best(row) if generation.reward else row["responses"]:
            # colors tell prompt and continuation apart in a terminal; elsewhere a line does
            joined = console.is_terminal and isinstance(row["prompt"], str)
            between = "" if joined else "\n-- response\n"
            # Text, not str: rich would read brackets in a response as markup
            console.print(Text.assemble((text_of(row["prompt"]), "dim"), between, text, "\n"))


def _best(row: dict[str, Any]) -> Iterator[str]:
    """The best response and its reward."""
    if row["responses"]:
        yield f"{row['responses'][0]}\nreward {row['reward']:.4f}"
    else:
        yield "\nno reward: every response is empty"
