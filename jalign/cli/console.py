"""The console of a command, whose reader may go away."""

from rich.console import Console

from jalign.cli.ending import PIPE_CLOSED, silence


class CommandConsole(Console):
    """rich's console; where the pipe it prints to is closed, a command that is there to print ends
    quietly, and one that writes files goes on (`goes_on`).
    """

    def __init__(self, *, goes_on: bool):
        super().__init__()
        self.goes_on = goes_on

    def on_broken_pipe(self) -> None:
        self.quiet = True
        silence()
        if not self.goes_on:
            raise SystemExit(PIPE_CLOSED)
