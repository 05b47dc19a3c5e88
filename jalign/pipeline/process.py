"""A stage of a pipeline as a process of its own, which frees its memory and devices when it ends.

Two pipelines never work in one folder at a time. The stage inherits the lock, so a stage that
outlives a killed pipeline ends before the next one begins.
"""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from jalign.pipeline.stages import Stage
from jalign.train.exit_code import ExitCode


@contextmanager
def locked(out: Path, say: Callable[[str], None]) -> Iterator[int]:
    """Lock the folder; the lock is held until this process and its stages end."""
    with (out / ".lock").open("w") as file:
        try:
            # flock ends with the last process that holds the file: no stale lock after kill -9.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another pipeline, or a stage that outlived one, still works in {out}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


class Runner:
    """Runs a stage, and forwards signals to it.

    SIGTERM is forwarded, so that training saves before it ends. Ctrl-C is not: the terminal sends
    it to both processes.

    Attributes:
      stop_requested: whether the pipeline received SIGTERM or SIGINT.

    Args:
      lock: file descriptor that the stage inherits.
      command: that runs a stage, given its arguments.
    """

    def __init__(self, lock: int, command: Sequence[str] = (sys.executable, "-m", "jalign")):
        self._lock, self._command, self.stop_requested = lock, command, False
        self._process: subprocess.Popen | None = None

    def run(self, stage: Stage) -> int:
        """The exit code of a stage; PREEMPTED after a request to stop, 128 + signal where another
        signal killed it.
        """
        signals = (signal.SIGTERM, signal.SIGINT)
        # Before the stage starts: a SIGTERM in between would end us and leave it running.
        before = {number: signal.signal(number, self._handle) for number in signals}
        command = [*self._command, *stage.args]
        try:
            with subprocess.Popen(command, pass_fds=(self._lock,)) as self._process:
                if self.stop_requested:  # a signal that came before the process existed
                    self._process.terminate()
                code = self._process.wait()
        finally:
            self._process = None
            for number, handler in before.items():
                # None is a handler that C code set; Python cannot put it back.
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self.stop_requested and code < 0:
            return int(ExitCode.PREEMPTED)
        # Popen has -N for a signal; shells and schedulers expect 128 + N.
        return code if code >= 0 else 128 - code

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stop_requested = True
        if number == signal.SIGTERM and self._process is not None:
            self._process.terminate()
