"""A stage of a pipeline as a process of its own: it gives its memory and its devices back.

Two pipelines never work in one folder at a time. The lock is handed on to the stage, so that one
which outlives a killed pipeline ends before another begins.
"""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jalign.pipeline.stages import Stage
from jalign.train.preemption import ExitCode


@contextmanager
def locked(out: Path, say: Callable[[str], None]) -> Iterator[int]:
    """The folder for us alone, as long as this or a stage of it runs."""
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another pipeline, or a stage that outlived one, still works in {out}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


class Runner:
    """Runs a stage, and hands on to it what the pipeline is told.

    SIGTERM is passed on, so that training saves before it ends. Ctrl-C reaches the stage by itself:
    the terminal sends it to both.

    Attributes:
      told: whether the pipeline was told to stop.

    Args:
      lock: file descriptor that the stage holds too.
      command: what the arguments of a stage are given to.
    """

    def __init__(self, lock: int, command: Sequence[str] = (sys.executable, "-m", "jalign")):
        self._lock, self._command, self.told = lock, command, False
        self._process: subprocess.Popen | None = None

    def run(self, stage: Stage) -> int:
        """The exit code of a stage; PREEMPTED where it was told to stop, from 128 up where a
        signal that we were not sent killed it.
        """
        signals = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._hear) for number in signals}
        command = [*self._command, *stage.args]
        try:
            with subprocess.Popen(command, pass_fds=(self._lock,)) as self._process:
                if self.told:  # in the moment before there was a process to tell
                    self._process.terminate()
                code = self._process.wait()
        finally:
            self._process = None
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.told and code < 0:
            return int(ExitCode.PREEMPTED)
        return code if code >= 0 else 128 - code

    def _hear(self, number: int, frame: Any) -> None:
        del frame
        self.told = True
        if number == signal.SIGTERM and self._process is not None:
            self._process.terminate()
