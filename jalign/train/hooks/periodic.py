"""Hooks that run every few steps and may be interrupted: evaluation and sampling."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax

from jalign.core import Frozen, TrainState
from jalign.log import Logger
from jalign.train.loop import StepInfo


def is_due(every: int, step: int, last: bool) -> bool:
    """Whether to act after this step: after the last one and, unless `every` is 0, every `every`
    steps.
    """
    return last or bool(every and step % every == 0)


class PeriodicHook:
    """A slow hook: it runs every `every` steps (0: never) and after the last step.

    A preempted process has seconds to save, not minutes to evaluate. So `stop` is asked before the
    work, and a hook that is stopped sets `interrupted`; the resumed run repeats that work.

    Attributes:
      interrupted: whether the last run of the hook was cut short.
    """

    def __init__(self, *, every: int, stop: Callable[[], bool] = lambda: False):
        self.every, self.stop, self.interrupted = every, stop, False

    def __call__(self, info: StepInfo) -> None:
        if is_due(self.every, info.step, info.last):
            self.run(info.step, info.state, info.frozen)

    def run(self, step: int, state: TrainState, frozen: Frozen) -> None:
        """Do the work for the state after `step`."""
        raise NotImplementedError


def phase(log: Logger, name: str, state: TrainState) -> AbstractContextManager[object]:
    """A phase of the log, excluded from the training time.

    Steps are dispatched asynchronously. Waiting for the state first keeps their time out of the
    phase.
    """
    jax.block_until_ready(state.params)
    return log.phase(name)
