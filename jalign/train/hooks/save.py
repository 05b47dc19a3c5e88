"""Checkpoints during training, and the orderly end of a preempted run."""

from __future__ import annotations

from collections.abc import Callable

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.core import TrainState
from jalign.train.exit_code import ExitCode
from jalign.train.hooks.periodic import is_due
from jalign.train.loop import StepInfo, StopTraining
from jalign.train.preemption import Preemption


class Save:
    """Saves every `every` steps, at the end, after a step that `is_best`, and to retry a failed
    save.

    When preempted it saves and raises `StopTraining`; at the last step too if a hook was
    `interrupted`, so that the run is resumed and repeats that hook.

    Args:
      save: (step, state, whether it is the best) -> None.
    """

    def __init__(
        self,
        save: Callable[[int, TrainState, bool], None],
        checkpoints: Checkpointer,
        preemption: Preemption,
        *,
        every: int,
        is_best: Callable[[int], bool] = lambda step: False,
        interrupted: Callable[[], bool] = lambda: False,
    ):
        self.save, self.checkpoints, self.preemption = save, checkpoints, preemption
        self.every, self.is_best, self.interrupted = every, is_best, interrupted

    def __call__(self, info: StepInfo) -> None:
        # All three are collective: every process must evaluate them at every step, in this order.
        preempted = self.preemption.reached(info.step)
        best = self.is_best(info.step)
        timely = is_due(self.every, info.step, info.last)
        if preempted or timely or best or self.checkpoints.needs_retry():
            self.save(info.step, info.state, best)
        if preempted and (self.interrupted() or not info.last):
            # Saving is asynchronous; a preempted process must not exit before it is on disk.
            self.checkpoints.wait()
            raise StopTraining(f"preempted: step {info.step} is saved", ExitCode.PREEMPTED)
