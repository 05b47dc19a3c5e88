"""Micro-batches for sampled responses: a few static shapes, of which the smallest that fits is
used.

Responses are shorter than the limit, by an amount known only after sampling. A single shape for the
longest would make every step as expensive as the longest; a shape for each set of lengths would
compile in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jalign.data.collate import Field
from jalign.data.examples import Examples
from jalign.data.lay_out import lay_out
from jalign.data.packing import Bin, Demands, Shape, assign, demands_of, fractions_of_stream
from jalign.layout import MicroBatches
from jalign.parallel.hosts import to_global
from jalign.parallel.mesh import batch_shards
from jalign.train.source import SPLIT

# Fractions of the longest prompt, responses and row for which there are shapes. A run compiles its
# programs once per shape it meets, so levels are few, and which one is met must follow from the
# examples alone: every process has to choose the same.
PROMPT_LEVELS = ROW_LEVELS = (0.5, 1.0)
RESPONSE_LEVELS = (0.25, 0.5, 0.75, 1.0)


class Packing(NamedTuple):
    """The assignment of examples to streams of micro-batches.

    Attributes:
      shape: of a micro-batch.
      room: most micro-batches of a step; unfilled ones are skipped.
      bins: the filled ones.
    """

    shape: Shape
    room: int
    bins: list[Bin]

    def share(self, process: int, processes: int) -> Packing:
        """The streams of one process: a part of every micro-batch."""
        size = self.shape.streams // processes
        streams = slice(process * size, (process + 1) * size)
        bins = [of_streams[streams] for of_streams in self.bins]
        return Packing(self.shape._replace(streams=size), self.room, bins)


def bin_shape(
    *, examples: int, responses: int, prompt_len: int, response_len: int, max_tokens: int,
    streams: int, multiple: int, of_prompt: float = 1.0, of_responses: float = 1.0,
    of_row: float = 1.0,
) -> tuple[Shape, int]:  # fmt: skip
    """The shape of a micro-batch, and the most micro-batches that a step needs.

    Args:
      examples: of a step, with K = `responses` each; spread evenly over the micro-batches.
      prompt_len, response_len: most tokens.
      max_tokens: of a micro-batch on one device, unless one example has more.
      streams: number of shards of a batch.
      multiple: row lengths and token budgets are multiples of it.
      of_prompt, of_responses, of_row: fractions of the longest prompt, of the longest responses
        and, for each example, of the longest row that the examples take on average; at 1 any fit.
    """
    up = lambda x: -(-ceil(x) // multiple) * multiple  # noqa: E731
    scored = ceil(of_responses * responses * response_len)
    tokens = ceil(of_prompt * prompt_len) + scored
    per_stream = -(-examples // streams)
    fit = max(1, max_tokens // tokens)
    count = -(-per_stream // fit)
    # Evenly: a full micro-batch and a nearly empty one cost the same.
    fit = -(-per_stream // count)
    shape = Shape(
        streams=streams,
        tokens=up(fit * tokens + 1),  # the last slot is a dummy
        rows=fit * responses,
        row_len=up(of_row * (prompt_len + response_len)),
        scored=up(fit * scored),
        prompts=fit,
        responses=responses,
        response_len=response_len,
        prompt_len=prompt_len,
    )
    return shape, count


def fit_into(demands: Demands, shape: Shape, count: int) -> Packing | None:
    """The examples in at most `count` bins of a shape; None if they do not fit."""
    if demands.each:
        total = np.sum(demands.each, axis=0)
        # Cheap and exact: what exceeds all bins together need not be placed to see that.
        if (total > np.array(shape.capacity) * shape.groups * count).any():
            return None
        if max(fractions_of_stream(demands.each, shape)) > 1:
            return None
    [bins] = assign(demands, [shape])
    return Packing(shape, count, bins) if len(bins) <= count else None


@dataclass(frozen=True)
class MicroBatchPacker:
    """Packs prompts and responses of at most these lengths into the smallest of a few shapes.

    Attributes:
      mesh: over all devices.
      prompt_len, response_len: most tokens.
      max_tokens: most tokens of a micro-batch on one device, unless one example has more.
      multiple: row lengths and token budgets are multiples of it.
    """

    mesh: Mesh
    prompt_len: int
    response_len: int
    max_tokens: int
    multiple: int

    def pack(
        self,
        examples: Examples,
        indices: Sequence[int],
        responses: int,
        room: int,
    ) -> tuple[MicroBatches, ...]:
        """`examples[indices]` on the device, K = `responses` each, in shapes for at least `room`
        examples. Their extras are [n], [n, K], [n, K, R] or [n, K, R, A], and become float32.
        """
        streams = batch_shards(self.mesh)
        demands = demands_of(examples.lengths.take(indices))
        packing = self.packing(demands, responses, max(len(indices), room), streams)
        # Every process plans all streams, for the same shapes everywhere, and lays out its own.
        shape, room, bins = packing.share(jax.process_index(), jax.process_count())
        axes = {name: ("", "K", "KR", "KRA")[np.ndim(x) - 1] for name, x in examples.extras.items()}
        width = {name: np.shape(x)[-1] for name, x in examples.extras.items()}
        fields = {name: Field(letters, np.float32, width[name]) for name, letters in axes.items()}
        stack = lay_out(bins, examples, indices, shape, fields, room)
        return to_global(self.mesh, SPLIT, (stack,))

    def packing(self, demands: Demands, responses: int, room: int, streams: int) -> Packing:
        """The examples of these demands in the cheapest shape that holds them."""
        shape_of = partial(
            bin_shape,
            examples=room,
            responses=responses,
            prompt_len=self.prompt_len,
            response_len=self.response_len,
            max_tokens=self.max_tokens,
            streams=streams,
            multiple=self.multiple,
        )
        longest = max(demands.longest, default=0) / (self.prompt_len + self.response_len)
        of_row = next((level for level in ROW_LEVELS if longest <= level), 1.0)
        shapes = [
            shape_of(of_prompt=p, of_responses=r, of_row=of_row)
            for p in PROMPT_LEVELS
            for r in RESPONSE_LEVELS
        ]
        # The cheapest first: a micro-batch costs what its slots cost, filled or not.
        for shape, count in sorted(shapes, key=lambda x: x[0].slots * x[1]):
            if packing := fit_into(demands, shape, count):
                return packing
        packing = fit_into(demands, *shape_of())
        assert packing is not None  # a shape for the longest holds any
        return packing
