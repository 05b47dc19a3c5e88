"""The training loop."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jalign.core import Arrays, Frozen, TrainState
from jalign.train.source import BatchFn
from jalign.train.step import TrainStepFn


class StepInfo(NamedTuple):
    """Arguments of a hook after a step. Arrays are still on the device: reading one waits for the
    step.
    """

    step: int  # optimizer steps taken so far
    last: bool  # whether the run ends after this one, as far as is known when the hook is called
    state: TrainState
    frozen: Frozen
    metrics: Arrays


Hook = Callable[[StepInfo], bool | None]
"""Return True to stop after this step; later hooks see `last=True`."""


class StopTraining(Exception):
    """Raised by a hook to end the run at once: hooks after it are not called.

    Attributes:
      reason: for people.
      exit_code: of the process (`train.exit_code`).
    """

    def __init__(self, reason: str, exit_code: int):
        super().__init__(reason)
        self.reason, self.exit_code = reason, exit_code


def fit(
    step: TrainStepFn,
    state: TrainState,
    frozen: Frozen,
    source: BatchFn,
    *,
    steps: int,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Take optimizer steps until `steps` have been taken in all, counted from `state.step`, or a
    hook ends the run.

    Nothing here waits for the device; a hook that reads a metric does.

    Args:
      step: compiled `(state, frozen, data) -> (state, metrics)` that donates the state.
      source: returns the data of the next step; it must be positioned at `state.step`.
      hooks: called after every step, in order; one may return True or raise `StopTraining`.
    """
    # `state.step` is read once: reading it in the loop would wait for every step.
    for taken in range(int(state.step) + 1, steps + 1):
        state, metrics = step(state, frozen, source(state, frozen))
        last = taken == steps
        # Hooks after one that ends the run are still called: they log and save the last step.
        for hook in hooks:
            last |= hook(StepInfo(taken, last, state, frozen, metrics)) is True
        if last:
            break
    return state
