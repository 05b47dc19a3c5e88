"""The one loop."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jalign.core import Arrays, Frozen, TrainState
from jalign.train.source import Source
from jalign.train.step import Step


class Moment(NamedTuple):
    """What a hook sees after a step. Arrays are still on the device: reading one waits for the
    step.
    """

    step: int  # optimizer steps taken so far
    last: bool  # whether the run ends after this one
    state: TrainState
    frozen: Frozen
    metrics: Arrays


Hook = Callable[[Moment], None]


class StopTraining(Exception):
    """Raised by a hook to end the run.

    Attributes:
      reason: for people.
      exit_code: what the process ends with (`train.preemption`).
    """

    def __init__(self, reason: str, exit_code: int):
        super().__init__(reason)
        self.reason, self.exit_code = reason, exit_code


def fit(
    step: Step,
    state: TrainState,
    frozen: Frozen,
    source: Source,
    *,
    steps: int,
    hooks: Sequence[Hook] = (),
) -> TrainState:
    """Take optimizer steps until `steps` have been taken in all, counted from `state.step`.

    Nothing here waits for the device; a hook that reads a metric does.

    Args:
      step: compiled `(state, frozen, data) -> (state, metrics)` that donates the state.
      source: gives the data of the next step; it must stand at `state.step`.
      hooks: called after every step, in order; one may raise `StopTraining`.
    """
    for taken in range(int(state.step) + 1, steps + 1):
        state, metrics = step(state, frozen, source(state, frozen))
        for hook in hooks:
            hook(Moment(taken, taken == steps, state, frozen, metrics))
    return state
