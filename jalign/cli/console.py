"""The console of a command; handles a closed pipe."""

from rich.console import Console

from jalign.cli.ending import PIPE_CLOSED, discard_output


class CommandConsole(Console):
    """rich's console for output into a pipe that may be closed, as by `head`: a command that only
    prints then ends quietly, one that writes files (`writes_files`) continues.
    """

    def __init__(self, *, writes_files: bool):
        super().__init__()
        self.writes_files = writes_files

    def on_broken_pipe(self) -> None:
        self.quiet = True
        discard_output()
        if not self.writes_files:
            raise SystemExit(PIPE_CLOSED)
