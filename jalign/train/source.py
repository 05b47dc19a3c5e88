"""Where the data of a step comes from: `Source = (state, frozen) -> tuple[Parts, ...]`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jalign import store
from jalign.core import Batch, Frozen, Parts, TrainState
from jalign.data.pipeline import Batches
from jalign.parallel.hosts import to_global

Source = Callable[[TrainState, Frozen], tuple[Parts, ...]]

SPLIT = PartitionSpec(None, ("data", "fsdp"))  # [micro-batches, streams or examples, ...]


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
        lengths = batches.examples.lengths()
        rows = lengths.prompt_len[:, None] * (lengths.response_lens > 0) + lengths.response_lens
        self._tokens_of = rows.sum(1)
        self.seek(0)

    def __call__(self, state: TrainState, frozen: Frozen) -> tuple[Parts, ...]:
        del state, frozen  # offline data do not depend on the policy
        data = next(self._iterator)
        self.tokens += int(self._tokens_of[self.batches.indices(self.step)].sum())
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
        return self.batches.plan.describe()

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

    def eval_batches(self) -> Iterator[tuple[Parts, ...]]:
        """Every example once, in order."""
        return map(self.on_device, self.batches.eval_batches())

    def on_device(self, data: tuple[dict[str, Any], ...]) -> tuple[Parts, ...]:
        """Host arrays to arrays over the mesh, each device getting its own streams only."""
        return on_mesh(self.mesh, data, self.columns)


def on_mesh(
    mesh: Mesh, data: tuple[dict[str, Any], ...], columns: Mapping[str, np.ndarray] = {}
) -> tuple[Parts, ...]:
    """Host arrays to arrays over the mesh; `columns` are looked up by example number."""
    return tuple(_part(mesh, d["batch"], d["count"], columns) for d in data)


def _part(
    mesh: Mesh, batch: dict[str, Any], count: Any, columns: Mapping[str, np.ndarray]
) -> Parts:
    extras = dict(batch["extras"])
    for name, column in columns.items():
        index = extras["index"]
        extras[name] = np.where(index >= 0, column[index], 0).astype(np.float32)
    whole = Batch(batch["layout"], batch["mask"], extras)
    return Parts(to_global(mesh, SPLIT, whole), to_global(mesh, PartitionSpec(), np.int32(count)))
