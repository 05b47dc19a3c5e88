"""Batches of examples by step number: stateless, and equal on any number of hosts.

Step s consumes the examples `Order` gives it. Nothing is remembered between steps, so a resumed run
needs the step number only, and every process lays out its own part of the same bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np

from jalign.data.batch_spec import BatchSpec
from jalign.data.budget import BatchShapes, choose
from jalign.data.collate import fields_of
from jalign.data.examples import Examples, Lengths
from jalign.data.lay_out import lay_out
from jalign.data.mismatch import mismatched_ids, mismatched_lengths
from jalign.data.order import Order
from jalign.data.packing import Bin, Shape, assign, demands_of
from jalign.layout import MicroBatches

SAMPLE_EXAMPLES = 512  # on which shapes are tried: these or more
SAMPLE_BATCHES = 24  # at least


class Batches:
    """The batches of optimizer steps, laid out in bins of static shapes.

    Args:
      examples: the data set.
      spec: how it is cut.

    Attributes:
      shapes: the shapes, and how many bins of each a batch may need.

    Raises:
      ValueError: data without examples, without scored tokens, or with responses or extras for
        which `spec.mismatch` cannot apply.
    """

    def __init__(self, examples: Examples, spec: BatchSpec):
        if not len(examples):
            raise ValueError("the data set has no examples")
        lengths = examples.lengths
        if not lengths.scored_lens.any():
            raise ValueError(
                "the data set has no scored tokens: it holds prompts without responses"
            )
        if spec.mismatch and lengths.response_lens.shape[1] != 1:
            raise ValueError(
                "mismatch adds a second response, but the data set has several already"
            )
        self.examples, self.spec = examples, spec
        longest = np.array(demands_of(lengths).longest)
        self._row_len = int(longest.max())
        self.order = Order(spec, longest)
        sample = self._sample()
        self._fields = fields_of(examples, np.unique(np.concatenate(sample)))
        per_response = [name for name, field in self._fields.items() if "K" in field.axes]
        if spec.mismatch and per_response:
            raise ValueError(
                f"mismatch adds a response for which the extras {per_response} have no value"
            )
        n, b = len(examples), spec.batch_size
        batches = [self._lengths(indices, self._mismatched(indices)) for indices in sample]
        # A batch that straddles two epochs can hold an example twice: copies=2.
        self.shapes: BatchShapes = choose(
            lengths, batches, spec, copies=1 if n % b == 0 or n < b else 2
        )

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every example is seen once; batches may straddle epochs."""
        return len(self.examples) / self.spec.batch_size

    def epoch(self, step: int) -> float:
        """How often the data set has been seen before `step`."""
        return step / self.steps_per_epoch

    def batch(self, step: int) -> tuple[MicroBatches, ...]:
        """The micro-batches of a step, for each of `shapes`."""
        return self._build(self.order[step])

    def eval_batches(self) -> Iterator[tuple[MicroBatches, ...]]:
        """Every example once, in the order of the data set; the last batch may be partly empty."""
        n, b = len(self.examples), self.spec.batch_size
        for first in range(0, n, b):
            yield self._build(np.arange(first, min(first + b, n)))

    def prefetch(
        self, start_step: int = 0, *, threads: int = 2, ahead: int = 4
    ) -> Iterator[tuple[MicroBatches, ...]]:
        """`batch(start_step)`, `batch(start_step + 1)`, ... prepared by threads ahead of time."""
        # A MapDataset has a length; no run reaches this one.
        steps = grain.MapDataset.range(start_step, 2**62)
        batches = steps.map(self.order.__getitem__).map(self._build)
        # Threads: grain's worker processes need parsed absl flags and a guarded __main__.
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
        return iter(batches.to_iter_dataset(options))

    def position(self, step: int) -> dict[str, object]:
        """Facts for the checkpoint, from which `check` detects changed data after a restart."""
        spec = self.spec
        return {
            "examples_seen": step * spec.batch_size,
            "epoch": self.epoch(step),
            "batch_size": spec.batch_size,
            "seed": spec.seed,
            "shuffle": spec.shuffle,
            "group_by_length": spec.group_by_length,
            "mismatch": spec.mismatch,
            "examples": len(self.examples),
            "fingerprint": self.examples.fingerprint,
        }

    def check(self, position: Mapping[str, object]) -> None:
        """Raises ValueError unless a stored `position` belongs to the same sequence of batches."""
        differs = [
            f"{name} was {position.get(name)!r} and is {value!r}"
            for name, value in self.position(0).items()
            if name not in ("examples_seen", "epoch") and position.get(name) != value
        ]
        if differs:
            raise ValueError("the checkpoint was made with other data: " + "; ".join(differs))

    def statistics(self, step: int) -> dict[str, float]:
        """Use of a step's bins: num_tokens (rows, unshared), slots_per_token, fill, bins."""
        indices, shapes = self.order[step], self.shapes.shapes
        demands = demands_of(self._lengths(indices, self._mismatched(indices)))
        filled = [len(bins) for bins in assign(demands, shapes)]
        slots = sum(n * s.slots for n, s in zip(filled, shapes, strict=True))
        rows = float(demands.unshared)
        held = rows if shapes[0].padded else float(demands.shared)
        return {
            "num_tokens": rows,
            "slots_per_token": slots / rows,
            "fill": held / slots,
            "bins": float(sum(filled)),
        }

    def _sample(self) -> list[np.ndarray]:
        """Batches on which shapes are tried: spread over the first epoch."""
        n, b = len(self.examples), self.spec.batch_size
        if n < b:
            return [np.arange(n)]
        # Over the whole epoch: files are often sorted by source or length.
        steps = np.linspace(0, n // b - 1, max(SAMPLE_BATCHES, SAMPLE_EXAMPLES // b)).astype(int)
        return [self.order[int(s)] for s in np.unique(steps)]

    def _mismatched(self, indices: np.ndarray) -> list[int | None]:
        """Index of the second response of each example; empty without `spec.mismatch`."""
        if not self.spec.mismatch:
            return []
        return mismatched_ids(self.examples, indices, self._row_len)

    def _lengths(self, indices: np.ndarray, mismatched: Sequence[int | None]) -> Lengths:
        lengths = self.examples.lengths
        if self.spec.mismatch:
            return mismatched_lengths(lengths, indices, mismatched)
        return lengths.take(indices)

    def _local(self, streams: Bin, shape: Shape) -> Bin:
        """The part of a bin that this process lays out."""
        spec = self.spec
        size = (shape.examples if shape.padded else shape.streams) // spec.process_count
        here = slice(spec.process_index * size, (spec.process_index + 1) * size)
        return [streams[0][here]] if shape.padded else streams[here]

    def _build(self, indices: np.ndarray) -> tuple[MicroBatches, ...]:
        mismatched = self._mismatched(indices)
        shapes, bounds = self.shapes.shapes, self.shapes.bounds
        # Every host assigns all examples and writes its own streams: no communication.
        assigned = assign(demands_of(self._lengths(indices, mismatched)), shapes)
        return tuple(
            lay_out(
                [self._local(streams, shape) for streams in bins],
                self.examples,
                indices,
                shape._replace(streams=shape.streams // self.spec.process_count),
                self._fields,
                bound,
                mismatched,
            )
            for bins, shape, bound in zip(assigned, shapes, bounds, strict=True)
        )
