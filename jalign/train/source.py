"""Sources of training batches: `(state, frozen) -> tuple[MicroBatches, ...]`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jalign import store
from jalign.core import Frozen, TrainState
from jalign.data.pipeline import Batches
from jalign.layout import Batch, MicroBatches
from jalign.parallel.axes import BATCH_AXES
from jalign.parallel.hosts import to_global

Source = Callable[[TrainState, Frozen], tuple[MicroBatches, ...]]

SPLIT = PartitionSpec(None, BATCH_AXES)  # [micro-batches, streams or examples, ...]


class Offline:
    """Batches of a fixed data set, in an order that follows from the step number alone.

    `tokens` counts the tokens consumed so far, a shared prompt once per response (as peers count
    them). `columns` are further arrays, one row per example of the data set (cached reference
    log-probs), that are looked up by example number and travel as extras.
    """

    def __init__(
        self, batches: Batches, mesh: Mesh, columns: Mapping[str, np.ndarray] | None = None
    ):
        self.batches, self.mesh, self.columns = batches, mesh, dict(columns or {})
        self._row_tokens = batches.examples.lengths.row_tokens
        self.seek(0)

    def __call__(self, state: TrainState, frozen: Frozen) -> tuple[MicroBatches, ...]:
        del state, frozen  # offline data do not depend on the policy
        data = next(self._iterator)
        self.tokens += int(self._row_tokens[self.batches.order[self.step]].sum())
        self.step += 1
        return self.on_device(data)

    def epoch(self, step: int) -> float:
        """How often the data set has been seen before a step."""
        return self.batches.epoch(step)

    def metrics(self) -> dict[str, float]:
        """Nothing is known about fixed data that the step does not say."""
        return {}

    def describe(self) -> list[str]:
        """The batches in words."""
        return self.batches.shapes.describe()

    def save(self, path: store.StorePath) -> None:
        """Nothing: the data follow from the step number."""

    def restore(self, position: Mapping[str, Any], step: int, path: store.StorePath) -> None:
        """Go on after `step` steps, as a checkpoint's position says."""
        del path
        self.seek(step, position["num_tokens"])

    def seek(self, step: int, tokens: int = 0) -> None:
        """Go on with the data of `step` (from 0), `tokens` having been consumed."""
        self.step, self.tokens = step, tokens
        self._iterator: Iterator = self.batches.prefetch(step)

    def position(self) -> dict[str, Any]:
        """What a checkpoint keeps: examples seen, epoch, and what the data must still be on
        resume.
        """
        return self.batches.position(self.step) | {"num_tokens": self.tokens}

    def eval_batches(self) -> Iterator[tuple[MicroBatches, ...]]:
        """Every example once, in order."""
        return map(self.on_device, self.batches.eval_batches())

    def on_device(self, data: tuple[MicroBatches, ...]) -> tuple[MicroBatches, ...]:
        """Host arrays to arrays over the mesh, each device getting its own streams only."""
        return to_global(self.mesh, SPLIT, with_columns(data, self.columns))


def with_columns(
    data: tuple[MicroBatches, ...], columns: Mapping[str, np.ndarray]
) -> tuple[MicroBatches, ...]:
    """Host micro-batches with further extras: rows of `columns` by example number, 0 in empty
    slots.
    """
    if not columns:
        return data

    def extended(batch: Batch) -> Batch:
        index = batch.extras["index"]
        looked_up = {
            name: np.where(index >= 0, column[index], 0).astype(np.float32)
            for name, column in columns.items()
        }
        return batch._replace(extras={**batch.extras, **looked_up})

    return tuple(stack._replace(batch=extended(stack.batch)) for stack in data)
