"""`jalign configs [WORD ...]`: the configs that ship with jalign."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser
from rich.console import Console

from jalign.config import packaged
from jalign.config.read import parsed

_DESCRIPTION = """The configs that ship with jalign, one per line, or those that contain the words.
They are given by name: jalign train tiny/grpo, jalign plan dpo/llama3_8b_lora_v5e8 --target
v5e-8; jalign pipeline those of pipelines/. jalign train NAME --print_config prints one with all its
keys."""


def configs(args: Sequence[str], console: Console) -> None:
    """Print the lines."""
    parser = ArgumentParser(prog="jalign configs", description=_DESCRIPTION, exit_on_error=False)
    parser.add_argument("words", nargs="*", help="words that a line must contain")
    for line in packaged.described(parsed(parser, args).words):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
