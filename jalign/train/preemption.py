"""Preemption: notice SIGTERM or Ctrl-C, save, and exit with a code that launchers understand."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from jalign.train.exit_code import ExitCode

__all__ = ["ExitCode", "Preemption"]

ABORT_S = 10.0
"""Seconds within which a second Ctrl-C ends the process, whatever it is doing."""


class Preemption:
    """Catches SIGTERM and Ctrl-C, and reports at the next step that the run should save and stop.

    In a single process it installs its own handler. The first SIGINT requests an orderly stop; the
    second raises KeyboardInterrupt, and ends the process after `ABORT_S` if that has no effect. A
    signal is acknowledged at once, even while a program compiles. With several processes the
    notifier of `jax.distributed` catches SIGTERM and makes all stop after the same step.

        with Preemption() as preemption:
            for step in ...:
                ...
                if preemption.reached(step):
                    checkpointer.save(step, ...)
                    checkpointer.wait()
                    sys.exit(ExitCode.PREEMPTED)

    Args:
      say: called in a thread with a message about each signal.
    """

    def __init__(self, say: Callable[[str], object] = lambda text: None) -> None:
        self.say = say
        self._several = jax.process_count() > 1
        self._seen: set[int] = set()
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Preemption:
        # After jax.distributed.initialize a Python handler would silently disable JAX's notifier.
        if not self._several:
            self._old = {s: signal.signal(s, self._hear) for s in (signal.SIGTERM, signal.SIGINT)}
            self._ears = socket.socketpair()
            # set_wakeup_fd refuses a blocking socket.
            self._ears[1].setblocking(False)
            self._woken = signal.set_wakeup_fd(self._ears[1].fileno(), warn_on_full_buffer=False)
            self._teller = threading.Thread(target=self._tell, daemon=True)
            self._teller.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if not self._old:
            return
        signal.set_wakeup_fd(self._woken)
        for number, handler in self._old.items():
            # None is a handler from below Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old = {}
        self._ears[1].close()  # ends the thread
        self._teller.join()
        self._ears[0].close()

    def _tell(self) -> None:
        """Acknowledge signals. Python runs handlers only between two of its instructions, which a
        compilation delays by up to a minute; the wakeup descriptor delivers signals at once.
        """
        heard: list[int] = []
        while number := self._ears[0].recv(1):
            heard += number
            if heard.count(signal.SIGINT) == 2:
                self.say("aborting")
                self._ears[0].settimeout(ABORT_S)
                try:
                    while self._ears[0].recv(1):
                        pass
                except TimeoutError:
                    # sys.exit would end this thread only; the main one may be compiling.
                    os._exit(ExitCode.INTERRUPTED)
                return
            if len(heard) == 1:
                how = "Ctrl-C again aborts" if heard == [signal.SIGINT] else "told by SIGTERM"
                self.say(f"stopping after this step and saving ({how})")

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self._seen:
            raise KeyboardInterrupt
        self._seen.add(number)

    def reached(self, step: int) -> bool:
        """Whether to save and stop after `step`.

        With several processes every one must ask at every step, with the same number.
        """
        if self._several:
            return bool(multihost_utils.reached_preemption_sync_point(step))
        return bool(self._seen)

    def heard(self) -> bool:
        """Whether this process should stop, to cut an evaluation short. Always False with several
        processes, which could not agree in the middle of an evaluation.
        """
        return bool(self._seen)

    def check(self) -> None:
        """Check that SIGTERM still reaches this handler; loggers and monitors often replace it.

        Raises:
          RuntimeError: another handler is installed, so that a preemption would lose all steps
            since the last checkpoint.
        """
        handler = signal.getsignal(signal.SIGTERM)
        # JAX's notifier is installed below Python, which then knows of no handler. One that Python
        # knows has replaced it.
        ours = (signal.SIG_DFL, None) if self._several else (self._hear,)
        if handler not in ours:
            raise RuntimeError(
                f"SIGTERM goes to {handler!r}, so a preemption would not be heard. Something"
                " installed that handler after this one; start it earlier, or tell it to leave"
                " signals alone."
            )
