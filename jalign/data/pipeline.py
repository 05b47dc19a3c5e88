"""Batches of examples by global example number: stateless, the same on any number of hosts.

Step s consumes the examples numbered s*batch_size ... (s+1)*batch_size - 1 of an endless sequence
that is a new permutation of the data set in every epoch. Nothing is remembered between steps, so a
restart needs the step number only, and every process lays out its own part of the same bins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import grain
import numpy as np

from jalign.data.budget import Cost, Plan, choose
from jalign.data.collate import fields_of
from jalign.data.examples import Example, Examples, Lengths
from jalign.data.packing import Bin, Shape, assign, lay_out, loads_of
from jalign.layout import MicroBatches

SAMPLED = 512  # examples on which shapes are tried, if that is at least
LEAST = 24  # batches


class Batches:
    """What an optimizer step consumes, laid out in bins of static shapes.

    Args:
      examples: the data set.
      batch_size: examples per step, over all processes.
      layout: "flat" (a prompt shared by its responses stands once) or "padded" (rows).
      streams: streams per bin over all processes, a multiple of the data-parallel devices; padded
        bins hold a multiple of it in examples.
      max_tokens: most tokens per stream, or per `streams`-th part of a padded bin.
      row_classes: row lengths for which bins are made, ascending; None chooses.
      multiple: row lengths and token budgets are multiples of it.
      seed: of the order.
      shuffle: a new permutation in every epoch, or the order of the data set.
      group_by_length: window in batches: its examples are sorted by length, cut into batches, and
        the batches shuffled, so that a batch holds examples of like length. 0: not.
      mismatch: give every example a second response, that of the next example of the batch with
        another prompt whose response fits the longest row of the data set (KTO's estimate of the
        KL term). Where there is none the second response is missing and its mask empty.
      process_index, process_count: which contiguous part of every bin this process lays out.
      cost: the cost model by which shapes are chosen.

    Attributes:
      plan: the shapes, and how many bins of each a batch may need.

    Raises:
      ValueError: an argument out of range or that cannot apply.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        layout: str = "flat",
        streams: int = 1,
        max_tokens: int = 8192,
        row_classes: Sequence[int] | None = None,
        multiple: int = 64,
        seed: int = 0,
        shuffle: bool = True,
        group_by_length: int = 0,
        mismatch: bool = False,
        process_index: int = 0,
        process_count: int = 1,
        cost: Cost = Cost(),
    ):
        if layout not in ("flat", "padded"):
            raise ValueError(f"layout is 'flat' or 'padded', got {layout!r}")
        if not len(examples):
            raise ValueError("the data set has no examples")
        counts = {"batch_size": batch_size, "streams": streams, "multiple": multiple}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if streams % process_count or not 0 <= process_index < process_count:
            raise ValueError(
                f"streams ({streams}) must be a multiple of process_count ({process_count}), and "
                f"process_index ({process_index}) below it"
            )
        if group_by_length and not shuffle:
            raise ValueError("group_by_length reorders examples, which shuffle=False forbids")
        if group_by_length < 0:
            raise ValueError(f"group_by_length is a number of batches, got {group_by_length}")
        self.examples, self.batch_size = examples, batch_size
        self.seed, self.shuffle, self.group_by_length = seed, shuffle, group_by_length
        self.mismatch = mismatch
        self.process_index, self.process_count = process_index, process_count
        self._lengths = examples.lengths()
        if not self._lengths.scored_lens.any():
            raise ValueError(
                "the data set has no scored tokens: it holds prompts without responses"
            )
        self._longest = np.array(loads_of(self._lengths).longest)
        if mismatch and self._lengths.response_lens.shape[1] != 1:
            raise ValueError(
                "mismatch adds a second response, but the data set has several already"
            )
        source = grain.MapDataset.source(range(len(examples)))
        # Any: grain's elements may be None, where they are filtered; these are not
        self._order: Any = (source.seed(seed).shuffle() if shuffle else source).repeat()
        self._window = lru_cache(maxsize=4)(self._sorted_window)
        sampled = self._sample()
        self._fields = fields_of([examples[i] for i in np.unique(np.concatenate(sampled))])
        several = [name for name, field in self._fields.items() if "K" in field.axes]
        if mismatch and several:
            raise ValueError(
                f"mismatch adds a response for which the extras {several} have no value"
            )
        n = len(examples)
        self.plan: Plan = choose(
            self._lengths,
            [self._batch_lengths(b, self._mates(b)) for b in sampled],
            batch_size,
            layout=layout,
            streams=streams,
            max_tokens=max_tokens,
            row_classes=row_classes,
            multiple=multiple,
            copies=1 if n % batch_size == 0 or n < batch_size else 2,
            mismatch=mismatch,
            cost=cost,
        )

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which every example is seen once; batches may straddle epochs."""
        return len(self.examples) / self.batch_size

    def epoch(self, step: int) -> float:
        """How often the data set has been seen before `step`."""
        return step / self.steps_per_epoch

    def indices(self, step: int) -> np.ndarray:
        """[batch_size] numbers in the data set of a step's examples, the same on all processes."""
        if self.batch_size > len(self.examples):
            raise ValueError(
                f"batch_size {self.batch_size} is more than the {len(self.examples)} examples"
            )
        first = step * self.batch_size
        return np.array([self._number(i) for i in range(first, first + self.batch_size)], np.int64)

    def batch(self, step: int) -> tuple[MicroBatches, ...]:
        """The micro-batches of a step, for each shape of the plan."""
        return self._build(self.indices(step))

    def eval_batches(self) -> Iterator[tuple[MicroBatches, ...]]:
        """Every example once, in the order of the data set; the last batch may be partly empty."""
        n = len(self.examples)
        for first in range(0, n, self.batch_size):
            yield self._build(np.arange(first, min(first + self.batch_size, n)))

    def prefetch(
        self, start_step: int = 0, *, threads: int = 2, ahead: int = 4
    ) -> Iterator[tuple[MicroBatches, ...]]:
        """`batch(start_step)`, `batch(start_step + 1)`, ... prepared by threads ahead of time."""
        steps = grain.MapDataset.range(start_step, 2**62).map(self.batch)
        return iter(
            steps.to_iter_dataset(
                grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
            )
        )

    def position(self, step: int) -> dict[str, Any]:
        """What a checkpoint stores, so that `check` notices other data after a restart."""
        return {
            "examples_seen": step * self.batch_size,
            "epoch": self.epoch(step),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "group_by_length": self.group_by_length,
            "mismatch": self.mismatch,
            "examples": len(self.examples),
            "fingerprint": self.examples.fingerprint,
        }

    def check(self, position: dict[str, Any]) -> None:
        """Raises ValueError unless a stored `position` belongs to the same sequence of batches."""
        own = self.position(0)
        other = [
            f"{name} was {position.get(name)!r} and is {value!r}"
            for name, value in own.items()
            if name not in ("examples_seen", "epoch") and position.get(name) != value
        ]
        if other:
            raise ValueError("the checkpoint was made with other data: " + "; ".join(other))

    def statistics(self, step: int) -> dict[str, float]:
        """Use of a step's bins: num_tokens (rows, unshared), slots_per_token, fill, bins."""
        indices = self.indices(step)
        loads = loads_of(self._batch_lengths(indices, self._mates(indices)))
        filled = [len(bins) for bins in assign(loads, self.plan.shapes)]
        slots = sum(n * s.slots for n, s in zip(filled, self.plan.shapes, strict=True))
        rows = float(loads.unshared)
        held = rows if self.plan.shapes[0].padded else float(loads.shared)
        return {
            "num_tokens": rows,
            "slots_per_token": slots / rows,
            "fill": held / slots,
            "bins": float(sum(filled)),
        }

    def _number(self, i: int) -> int:
        """The i-th example of the endless sequence."""
        if not self.group_by_length:
            return int(self._order[i])
        n, b = len(self.examples), self.batch_size
        epoch, at = divmod(i, n)
        head = -(epoch * n) % b  # completes the batch that the epoch before began
        whole = (n - head) // b * b
        if not head <= at < head + whole:
            return int(self._order[i])
        window, offset = divmod(at - head, self.group_by_length * b)
        size = min(self.group_by_length * b, whole - window * self.group_by_length * b)
        return int(self._window(epoch * n + head + window * self.group_by_length * b, size)[offset])

    def _sorted_window(self, first: int, size: int) -> np.ndarray:
        """`size` examples from `first` on, sorted by length in batches that are shuffled."""
        numbers = np.array([self._order[i] for i in range(first, first + size)])
        grouped = numbers[np.argsort(self._longest[numbers], kind="stable")].reshape(
            -1, self.batch_size
        )
        return np.random.default_rng((self.seed, first)).permutation(grouped).reshape(-1)

    def _sample(self) -> list[np.ndarray]:
        """Batches on which shapes are tried: spread over the first epoch."""
        n, b = len(self.examples), self.batch_size
        if n < b:
            return [np.arange(n)]
        steps = np.linspace(0, n // b - 1, max(LEAST, SAMPLED // b)).astype(int)
        return [self.indices(int(s)) for s in np.unique(steps)]

    def _mates(self, indices: np.ndarray) -> list[int | None]:
        """For each example of a batch the next (cyclically) with another prompt, if it fits."""
        if not self.mismatch:
            return []
        prompts = [self.examples[int(i)].prompt for i in indices]
        names = np.unique([p.tobytes() for p in prompts], return_inverse=True)[1]
        room = self._longest.max() - self._lengths.prompt_len[indices]
        size = len(indices)
        mates: list[int | None] = []
        for j in range(size):
            order = (j + 1 + np.arange(size - 1)) % size
            good = (names[order] != names[j]) & (
                self._lengths.response_lens[indices[order], 0] <= room[j]
            )
            mates.append(int(indices[order[good.argmax()]]) if good.any() else None)
        return mates

    def _batch_lengths(self, indices: np.ndarray, mates: list[int | None]) -> Lengths:
        lengths = Lengths(*(x[indices] for x in self._lengths))
        if not self.mismatch:
            return lengths
        response, scored = np.zeros((2, len(indices), 1), np.int32)
        for j, mate in enumerate(mates):
            if mate is not None:
                response[j] = self._lengths.response_lens[mate]
                scored[j] = self._lengths.scored_lens[mate]
        return Lengths(
            lengths.prompt_len,
            np.concatenate([lengths.response_lens, response], 1),
            np.concatenate([lengths.scored_lens, scored], 1),
        )

    def _example(self, index: int, mate: int | None) -> Example:
        example = self.examples[index]
        if mate is None:
            return example
        other = self.examples[mate]
        [scored] = other.scored
        if not len(example.prompt):
            scored = np.arange(len(scored)) > 0  # nothing stands before the first token any more
            scored &= other.scored[0]
        return example._replace(
            responses=(*example.responses, *other.responses), scored=(*example.scored, scored)
        )

    def _own(self, found: Bin, shape: Shape) -> Bin:
        """The part of a bin that this process lays out."""
        whole = shape.examples if shape.padded else shape.streams
        part = whole // self.process_count
        here = slice(self.process_index * part, (self.process_index + 1) * part)
        return [found[0][here]] if shape.padded else found[here]

    def _build(self, indices: np.ndarray) -> tuple[MicroBatches, ...]:
        mates = self._mates(indices)

        def get(i: int) -> tuple[Example, int]:
            index = int(indices[i])
            return self._example(index, mates[i] if mates else None), index

        found = assign(loads_of(self._batch_lengths(indices, mates)), self.plan.shapes)
        parts = []
        for bins, shape, bound in zip(found, self.plan.shapes, self.plan.bounds, strict=True):
            local = shape._replace(streams=shape.streams // self.process_count)
            own = [self._own(b, shape) for b in bins]
            parts.append(lay_out(own, get, local, self._fields, bound))
        return tuple(parts)
