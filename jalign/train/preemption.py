"""Being told to stop: notice it, save, and end with a code that a launcher understands."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

from jalign.train.exit_code import ExitCode

__all__ = ["ExitCode", "Preemption"]


class Preemption:
    """Hears SIGTERM, and Ctrl-C, and says at the next step that it is time to save and stop.

    One process: a handler of its own. The first SIGINT asks for an orderly stop, the second raises
    KeyboardInterrupt. Several processes: the notifier that `jax.distributed` installed hears
    SIGTERM and makes all processes stop after the same step.

        with Preemption() as preemption:
            for step in ...:
                ...
                if preemption.reached(step):
                    checkpointer.save(step, ...)
                    checkpointer.wait()
                    sys.exit(ExitCode.PREEMPTED)
    """

    def __init__(self) -> None:
        self._several = jax.process_count() > 1
        self._seen: set[int] = set()
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Preemption:
        if not self._several:
            self._old = {s: signal.signal(s, self._hear) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._old = {}

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
        """Whether this process has been told to stop: to cut an evaluation short. With several
        processes always False, since they could not agree in the middle of it.
        """
        return bool(self._seen)

    def check(self) -> None:
        """Self-test: SIGTERM still comes to us; loggers and monitors like to install handlers.

        Raises:
          RuntimeError: somebody else's handler is installed, so that a preemption would lose the
            run since the last checkpoint.
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
