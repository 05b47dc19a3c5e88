"""Specification of batches, and the cost model of their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jalign.data.packing import Shape

LAYOUTS = ("flat", "padded")


class Cost(NamedTuple):
    """Cost model that selects shapes, in token slots: 1 is the cost of the linear layers for one
    token. A filled bin costs, per stream,

        N + M*T*(row_slot + pair*T) + head*Q + bin

    Attributes:
      row_slot: moving one slot of an attention row (gather of q, k, v and of the result), about 4 D
        numbers each way against the 24 D^2 operations of the linear layers.
      pair: causal attention of a row is 2 T^2 D operations per layer, so 1 / (12 D).
      head: the unembedding of a scored token, 2 V D operations against 24 D^2 per layer.
      bin: fixed cost of a bin: reading the weights and accumulating gradients.

    The defaults are those of a model of width 2048 with 20 layers and a vocabulary of 100,000 on an
    accelerator. The selected shapes depend little on them.
    """

    row_slot: float = 0.05
    pair: float = 1 / (12 * 2048)
    head: float = 0.2
    bin: float = 128.0

    @classmethod
    def of_model(cls, width: int, depth: int, vocab_size: int, bin: float) -> Cost:
        """Costs of a decoder of this size; `bin` is about 32 on a CPU, 128 elsewhere."""
        return cls(pair=1 / (12 * width), head=vocab_size / (12 * width * depth), bin=bin)

    def of(self, shape: Shape) -> float:
        """Cost of one filled bin."""
        attention = shape.row_slots * (self.row_slot + self.pair * shape.row_len)
        head = self.head * shape.streams * shape.scored
        # Streams of a padded bin are single rows: the fixed cost is not paid for each of them.
        streams = 1 if shape.padded else shape.streams
        return shape.slots + attention + head + self.bin * streams


@dataclass(frozen=True)
class BatchSpec:
    """How a data set is cut into batches.

    Attributes:
      batch_size: examples per step, over all processes.
      layout: "flat" (a prompt shared by its responses is stored once) or "padded" (rows).
      streams: streams per bin over all processes, a multiple of the data-parallel devices; padded
        bins hold a multiple of it in examples.
      max_tokens: most tokens per stream, or per `streams`-th part of a padded bin.
      row_classes: row lengths for which bins are made, ascending; None tries a half and a quarter
        of the longest row.
      multiple: row lengths and token budgets are multiples of it.
      seed: of the order.
      shuffle: a new permutation in every epoch, or the order of the data set.
      group_by_length: window in batches: its examples are sorted by length, cut into batches, and
        the batches shuffled, so that a batch holds examples of similar length. 0: off.
      mismatch: give every example a second response, that of another example of the batch
        (`jalign.data.mismatch`).
      process_index, process_count: which contiguous part of every bin this process lays out.
      cost: the cost model by which shapes are chosen.

    Raises:
      ValueError: an argument out of range or that cannot apply.
    """

    batch_size: int
    layout: str = "flat"
    streams: int = 1
    max_tokens: int = 8192
    row_classes: Sequence[int] | None = None
    multiple: int = 64
    seed: int = 0
    shuffle: bool = True
    group_by_length: int = 0
    mismatch: bool = False
    process_index: int = 0
    process_count: int = 1
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self):
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout is 'flat' or 'padded', got {self.layout!r}")
        for name in ("batch_size", "streams", "multiple"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        # Every process contributes as many streams, as the parts of a global array have one shape.
        if self.streams % self.process_count or not 0 <= self.process_index < self.process_count:
            raise ValueError(
                f"streams ({self.streams}) must be a multiple of process_count "
                f"({self.process_count}), and process_index ({self.process_index}) below it"
            )
        if self.group_by_length and not self.shuffle:
            raise ValueError("group_by_length reorders examples, which shuffle=False forbids")
        if self.group_by_length < 0:
            raise ValueError(f"group_by_length is a number of batches, got {self.group_by_length}")

    @property
    def padded(self) -> bool:
        """Whether every stream is one row."""
        return self.layout == "padded"
