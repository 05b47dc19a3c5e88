"""`jalign chat MODEL`: a conversation in the terminal."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress

from rich.console import Console

from jalign.config.read import read_as
from jalign.options.serve import ChatConfig

WORDS = {"model": None}


def check_args(args: Sequence[str]) -> ChatConfig:
    """The options, checked as far as possible without loading a model."""
    return read_as(ChatConfig, args, "chat", WORDS)


def chat(args: Sequence[str], console: Console) -> None:
    """Converse until the input ends."""
    from jalign.serve.conversation import Conversation
    from jalign.serve.terminal import converse

    options = check_args(args)
    aside = Console(stderr=True)  # stdout carries the answers, which may go into a pipe

    def note(text: str) -> None:
        aside.print(text, style="dim", markup=False, highlight=False, soft_wrap=True)

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    with Conversation.load(options, note) as conversation:
        if plain := [name for name in conversation.messages if not conversation.has_template(name)]:
            note(f"no chat template: {', '.join(plain)} continues what you write")
        # an answer is stopped, not the program, which `exit_at_interrupts` ends at once
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            converse(conversation, _lines(note), write, note)
        signal.signal(signal.SIGINT, before)


def _lines(note) -> Iterator[str]:
    """What is typed, or the lines of a pipe."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with suppress(ImportError):
        import readline  # noqa: F401  # arrow keys and history
    note("/help lists the commands")
    with suppress(EOFError):
        while True:
            yield input("> ")
