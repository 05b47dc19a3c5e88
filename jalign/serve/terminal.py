"""A conversation in a terminal or through pipes: lines in, answers out as they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

from jalign.core import did_you_mean
from jalign.serve.conversation import Conversation

HELP = """/system TEXT   set the system message; without TEXT remove it
/undo          take back the last question with its answers
/save FILE     write the conversation to FILE, a line of JSON for each model
/help          this text
/quit          end; so does the end of the input (Ctrl-D)
Ctrl-C stops an answer. A line that begins with // is a message that begins with /."""
COMMANDS = ("/system", "/undo", "/save", "/help", "/quit")

Write = Callable[[str], object]


def converse(chat: Conversation, lines: Iterable[str], write: Write, note: Write) -> None:
    """Answer lines until they end, or one of them is /quit.

    Args:
      write: takes answers, in pieces.
      note: takes a line about what was done, or what is wrong.
    """
    for line in lines:
        text = line.strip()
        if text == "/quit":
            return
        try:
            if text.startswith("/") and not text.startswith("//"):
                note(_command(chat, text))
            elif text:
                # A text that goes on may begin with a space, a message that begins with / with two.
                _answer(chat, text[1:] if text.startswith("//") else line.rstrip(), write)
        except (ValueError, OSError) as error:  # of this line: the conversation goes on
            note(str(error))


def _command(chat: Conversation, line: str) -> str:
    """Do what a command says; what to tell the user."""
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name not in COMMANDS:
        raise ValueError(f"no command {name}{did_you_mean(name, COMMANDS)} (/help lists them)")
    if name == "/system":
        chat.set_system(rest)
        return "the system message is set" if rest else "the system message is removed"
    if name == "/save":
        if not rest:
            raise ValueError("/save needs a FILE")
        return f"saved to {chat.save(rest)}"
    if rest:
        raise ValueError(f"{name} takes nothing, got {rest!r:.80}")
    if name == "/undo":
        question = chat.undo()
        return "nothing has been said" if question is None else f"taken back: {question}"
    return HELP


def _answer(chat: Conversation, text: str, write: Write) -> None:
    """Write the answers, with the names of the models where there are two."""
    try:
        with closing(chat.ask(text)) as answers:
            for name, pieces in answers:
                if len(chat.messages) > 1:
                    write(f"-- {name}\n")
                with closing(pieces):
                    for piece in pieces:
                        write(piece)
                write("\n")
    except KeyboardInterrupt:
        write(" (stopped)\n")
