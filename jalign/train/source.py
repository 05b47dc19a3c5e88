"""Sources of training batches: what a step is taken on, where it stands, how it is resumed."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jalign import store
from jalign.core import Frozen, TrainState
from jalign.data.pipeline import Batches
from jalign.layout import Batch, MicroBatches
from jalign.parallel.axes import BATCH_AXES
from jalign.parallel.hosts import to_global

BatchFn = Callable[[TrainState, Frozen], tuple[MicroBatches, ...]]
"""(state, frozen) -> the data of the next step, on the devices: all that `train.loop.fit` needs."""

SPLIT = PartitionSpec(None, BATCH_AXES)  # [micro-batches, streams or examples, ...]


class Source(Protocol):
    """Where the data of a run come from: a data set (`Offline`), the policy itself
    (`train.online.Online`), or a class of your own such as a replay buffer.

    A call gives the data of the next step; the rest is for the log and for checkpoints. A run
    resumes exactly if, after `restore`, calls give what they would have given uninterrupted.
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
        """How often the data have been seen before a step."""
        ...

    def metrics(self) -> dict[str, float]:
        """Means since the last call, to be logged beside those of the steps."""
        ...

    def describe(self) -> list[str]:
        """The source in words, one line each, for the start of the log."""
        ...

    def position(self) -> dict[str, Any]:
        """Facts for the checkpoint, as JSON; `num_tokens` is among them."""
        ...

    def save(self, path: store.StorePath) -> None:
        """Write what `position` is too small for to a file, or nothing."""
        ...

    def restore(self, position: Mapping[str, Any], step: int, path: store.StorePath) -> None:
        """Resume after `step` steps, from what `position` and `save` kept."""
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
        """How often the data set has been seen before a step."""
        return self.batches.epoch(step)

    def metrics(self) -> dict[str, float]:
        """None: the steps report all there is about fixed data."""
        return {}

    def describe(self) -> list[str]:
        """The batches in words."""
        return self.batches.shapes.describe()

    def save(self, path: store.StorePath) -> None:
        """Nothing: the data follow from the step number."""

    def restore(self, position: Mapping[str, Any], step: int, path: store.StorePath) -> None:
        """Resume after `step` steps."""
        del path
        self.seek(step, position["num_tokens"])

    def seek(self, step: int, tokens: int = 0) -> None:
        """Continue with the data of `step` (from 0), `tokens` having been consumed."""
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
            # Empty slots have index -1, which numpy takes for the last example.
            name: np.where(index >= 0, column[index], 0).astype(np.float32)
            for name, column in columns.items()
        }
        return batch._replace(extras={**batch.extras, **looked_up})

    return tuple(stack._replace(batch=extended(stack.batch)) for stack in data)
