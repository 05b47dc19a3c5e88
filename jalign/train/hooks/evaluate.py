"""Metrics of the held-out data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jalign.core import Frozen, Mean, TrainState
from jalign.layout import MicroBatches
from jalign.train.hooks.evaluations import Evaluations
from jalign.train.hooks.metrics import with_margin
from jalign.train.hooks.periodic import PeriodicHook, phase
from jalign.train.step import with_reference


class Evaluate(PeriodicHook):
    """Evaluates the held-out data with the compiled `evaluate` and records the means.

    `stop` is asked before every batch. An interrupted evaluation is discarded.
    """

    def __init__(
        self,
        evaluations: Evaluations,
        evaluate: Callable[..., dict[str, Mean]],
        batches: Callable[[], Iterator[tuple[MicroBatches, ...]]],
        *,
        every: int,
        stop: Callable[[], bool] = lambda: False,
    ):
        super().__init__(every=every, stop=stop)
        self.evaluations, self.evaluate, self.batches = evaluations, evaluate, batches

    def run(self, step: int, state: TrainState, frozen: Frozen) -> None:
        """Evaluate a state and record the metrics, unless interrupted."""
        self.interrupted = False
        per_batch = []
        frozen = with_reference(frozen, state)
        with phase(self.evaluations.log, "evaluating", state):
            for data in self.batches():
                if self.stop():
                    self.interrupted = True
                    return
                per_batch.append(self.evaluate(state.params, frozen, state.carry, data))
            metrics = held_out_means(per_batch)
        self.evaluations.add(step, metrics)


def held_out_means(per_batch: Sequence[dict[str, Mean]]) -> dict[str, float]:
    """The metrics of an evaluation from the sums and weights of its batches."""
    # Sums and weights are added in float64: a float32 sum over many batches loses digits.
    fetched = jax.device_get(per_batch)
    total = jax.tree.map(lambda *sums: np.sum(sums, dtype=float), *fetched)
    return with_margin({name: float(mean.shown) for name, mean in total.items()})
