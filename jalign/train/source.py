"""Sources of training batches, with their position for checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jalign import store
from jalign.core import Frozen, TrainState
from jalign.data.pipeline import Batches
from jalign.layout import Batch, MicroBatches
from jalign.parallel.axes import BATCH_AXES
from jalign.parallel.hosts import to_global

if TYPE_CHECKING:
    from jalign.checkpoint.manifest import Facts

BatchFn = Callable[[TrainState, Frozen], tuple[MicroBatches, ...]]
"""(state, frozen) -> the data of the next step, on the devices: all that `train.loop.fit` needs."""

SPLIT = PartitionSpec(None, BATCH_AXES)  # [micro-batches, streams or examples, ...]


class Source(Protocol):
    """A source of training data: a data set (`Offline`), the policy itself (`train.online.Online`),
    or your own class, such as a replay buffer.

    A call returns the data of the next step; the other methods serve the log and checkpoints. A run
    resumes exactly if calls after `restore` return what an uninterrupted run would get.
    """

    @property
    def tokens(self) -> int:
        """Tokens consumed so far, a shared prompt once per response."""
        ...

    def __call__(self, state: TrainState, frozen: Frozen) -> tuple[MicroBatches, ...]:
        """The micro-batches of the next step, on the devices, always of the same shapes (each new
        one compiles the step again).

        Args:
          state: before the step; a source that samples from the policy reads its parameters. It is
            donated to the step, so keep no reference to its arrays.
          frozen: base weights and reference.
        """
        ...

    def epoch(self, step: int) -> float:
        """Passes over the data before a step."""
        ...

    def metrics(self) -> dict[str, float]:
        """Means since the last call, to be logged beside those of the steps."""
        ...

    def describe(self) -> list[str]:
        """The source in words, one line each, for the start of the log."""
        ...

    def position(self) -> Facts:
        """Facts for the checkpoint, JSON-serializable; they include `num_tokens`."""
        ...

    def save(self, path: store.StorePath) -> None:
        """Write state that is too large for `position` to a file, if there is any."""
        ...

    def restore(self, position: Facts, step: int, path: store.StorePath) -> None:
        """Resume after `step` steps, from what `position` and `save` stored."""
        ...


class Offline:
    """A `Source` of a fixed data set, in an order that follows from the step number alone.

    Args:
      batches: the data set as micro-batches on the host.
      mesh: over all devices.
      columns: further arrays, one row per example of the data set (cached reference log-probs),
        that are looked up by example number and added to the extras.
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
        """Passes over the data set before a step."""
        return self.batches.epoch(step)

    def metrics(self) -> dict[str, float]:
        """Empty: the steps report everything about fixed data."""
        return {}

    def describe(self) -> list[str]:
        """The batches in words."""
        return self.batches.shapes.describe()

    def save(self, path: store.StorePath) -> None:
        """Nothing: the data follow from the step number."""

    def restore(self, position: Facts, step: int, path: store.StorePath) -> None:
        """Resume after `step` steps."""
        del path
        self.seek(step, position["num_tokens"])

    def seek(self, step: int, tokens: int = 0) -> None:
        """Continue with the data of `step` (from 0), `tokens` having been consumed."""
        self.step, self.tokens = step, tokens
        self._iterator: Iterator = self.batches.prefetch(step)

    def position(self) -> Facts:
        """Facts for a checkpoint: examples seen, epoch, and what identifies the data on resume."""
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
            # Empty slots have index -1, which numpy takes for the last example.
            name: np.where(index >= 0, column[index], 0).astype(np.float32)
            for name, column in columns.items()
        }
        return batch._replace(extras={**batch.extras, **looked_up})

    return tuple(stack._replace(batch=extended(stack.batch)) for stack in data)
