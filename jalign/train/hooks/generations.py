"""Sampled continuations of held-out prompts, for people to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jalign.core import Frozen, TrainState
from jalign.log import Logger
from jalign.train.hooks.periodic import PeriodicHook, phase


class Generations(PeriodicHook):
    """Continuations of the same held-out prompts before, during and after training.

    Args:
      generate: (state, frozen) -> rows with `prompt` and `continuation`.
      scores: name -> function from texts to one number each; the mean over the continuations is
        logged as `samples/<name>/mean`.
      every, stop: as in `PeriodicHook`.
    """

    def __init__(
        self,
        log: Logger,
        generate: Callable[[TrainState, Frozen], list[dict[str, str]]],
        scores: Mapping[str, Callable[[list[str]], Sequence[float]]] = {},
        *,
        every: int,
        stop: Callable[[], bool] = lambda: False,
    ):
        super().__init__(every=every, stop=stop)
        self.log, self.generate, self.scores = log, generate, dict(scores)

    def run(self, step: int, state: TrainState, frozen: Frozen) -> None:
        """Sample from a state and record texts and scores, unless interrupted."""
        self.interrupted = self.stop()
        if self.interrupted:
            return
        with phase(self.log, "sampling continuations", state):
            rows = self.generate(state, frozen)
        self.log.text(step, "generations", rows)
        texts = [row["continuation"] for row in rows]
        means = {
            f"samples/{name}/mean": float(np.mean(score(texts)))
            for name, score in self.scores.items()
        }
        if means:
            self.log.write(step, means, "samples")
