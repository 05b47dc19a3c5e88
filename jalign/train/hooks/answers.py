"""Rewards of the policy's responses to held-out prompts."""

from __future__ import annotations

from collections.abc import Callable

from jalign.core import Frozen, TrainState
from jalign.train.hooks.evaluations import Evaluations
from jalign.train.hooks.periodic import PeriodicHook, phase
from jalign.train.step import with_reference


class Answers(PeriodicHook):
    """Samples and scores responses to the held-out prompts and records the metrics.

    Args:
      answer: (state, frozen) -> metrics, or None when preempted half-way. It uses the same random
        keys every time, so that evaluations differ by the policy alone.
      every, stop: as in `PeriodicHook`.
    """

    def __init__(
        self,
        evaluations: Evaluations,
        answer: Callable[[TrainState, Frozen], dict[str, float] | None],
        *,
        every: int,
        stop: Callable[[], bool] = lambda: False,
    ):
        super().__init__(every=every, stop=stop)
        self.evaluations, self.answer = evaluations, answer

    def run(self, step: int, state: TrainState, frozen: Frozen) -> None:
        """Sample, score and record, unless interrupted."""
        self.interrupted = self.stop()
        if self.interrupted:
            return
        with phase(self.evaluations.log, "answering the held-out prompts", state):
            metrics = self.answer(state, with_reference(frozen, state))
        if metrics is None:
            self.interrupted = True
        else:
            self.evaluations.add(step, metrics)
