"""Lays examples out in micro-batches ("bins") of static shape.

An example costs tokens (its prompt once, plus its responses), rows (its responses), scored tokens
and one place; a stream has a fixed amount of each. First-fit-decreasing chooses the streams, from
lengths alone, so that every host finds the same bins without reading tokens; only then are arrays
written, in the record that `jalign.layout` describes.

Shape letters as in `jalign.layout`: B prompts, K responses, R scored tokens, S streams, N tokens,
M rows, T tokens per row, Q scored tokens per stream, P prompts per stream.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from jalign.data.collate import Field, collate, fields_of
from jalign.data.examples import Example, Lengths
from jalign.layout import Batch, Layout, MicroBatches

Bin = list[list[int]]
"""For each stream the numbers of its examples (padded bins: one list, the examples in order)."""


class Shape(NamedTuple):
    """The static shape of a bin. `rows` = 0 says padded: S = B*K streams, each a row, N = T, Q = R.

    Attributes:
      streams: S.
      tokens: N, the dummy in the last place included.
      rows: M.
      row_len: T.
      scored: Q.
      prompts: P (padded: 1).
      responses: K.
      response_len: R, the most scored tokens of a response.
    """

    streams: int
    tokens: int
    rows: int
    row_len: int
    scored: int
    prompts: int
    responses: int
    response_len: int

    @property
    def padded(self) -> bool:
        """Whether every stream is one row."""
        return self.rows == 0

    @property
    def examples(self) -> int:
        """B, the places for examples."""
        return self.streams // self.responses if self.padded else self.streams * self.prompts

    @property
    def capacity(self) -> tuple[float, float, float, float]:
        """Tokens, rows, scored tokens, examples a stream takes (padded: examples a bin takes)."""
        if self.padded:
            return inf, inf, inf, self.examples
        return self.tokens - 1, self.rows, self.scored, self.prompts

    @property
    def groups(self) -> int:
        """Into how many streams examples are distributed (padded: 1, as places are all alike)."""
        return 1 if self.padded else self.streams

    @property
    def slots(self) -> int:
        """Token places of a bin, S*N."""
        return self.streams * self.tokens

    @property
    def row_places(self) -> int:
        """Places of attention rows of a bin, S*M*T."""
        return self.streams * max(self.rows, 1) * self.row_len

    def smaller_than(self, other: Shape) -> bool:
        """Whether a bin of this shape is less work."""
        return self.slots < other.slots and self.row_places <= other.row_places


Load = tuple[int, int, int, int]


class Loads(NamedTuple):
    """What examples take of a stream.

    Attributes:
      costs: for each tokens (the prompt once), rows, scored tokens, and 1 for its place.
      longest: for each the tokens of its longest row (prompt + one response).
      unshared: tokens of all rows together, each with its own copy of the prompt.
      shared: tokens of all examples together, prompts once.
    """

    costs: list[Load]
    longest: list[int]
    unshared: int
    shared: int


def loads_of(lengths: Lengths) -> Loads:
    """What each of n examples takes, from its lengths."""
    prompt, response, scored = lengths
    rows, total = (response > 0).sum(1), response.sum(1)
    columns = [c.tolist() for c in (prompt + total, rows, scored.sum(1), np.ones_like(prompt))]
    return Loads(
        costs=list(zip(*columns, strict=True)),
        longest=(prompt + response.max(1, initial=0)).tolist(),
        unshared=int((prompt * rows + total).sum()),
        shared=int((prompt + total).sum()),
    )


def lengths_of(examples: Sequence[Example], responses: int) -> Lengths:
    """Token counts of a list of examples, K = `responses`."""
    response, scored = np.zeros((2, len(examples), responses), np.int32)
    for i, e in enumerate(examples):
        if len(e.responses) > responses:
            raise ValueError(f"example {i} has {len(e.responses)} responses, the shape {responses}")
        response[i, : len(e.responses)] = [len(r) for r in e.responses]
        scored[i, : len(e.scored)] = [np.count_nonzero(s) for s in e.scored]
    return Lengths(np.array([len(e.prompt) for e in examples], np.int32), response, scored)


def shares(costs: Sequence[Load], shape: Shape) -> list[float]:
    """The part of a stream that each example takes: the largest of its costs over the capacity."""
    tokens, rows, scored, places = shape.capacity
    return [max(t / tokens, m / rows, q / scored, b / places) for t, m, q, b in costs]


def assign(loads: Loads, shapes: Sequence[Shape], *, even: bool = True) -> list[list[Bin]]:
    """Which example goes to which bin and stream: for each shape its filled bins.

    An example is at home in the shape with the shortest rows that hold its longest one, and of
    several such in the last. Shapes are filled from the longest rows down. First-fit-decreasing
    opens bins for those at home, the room they leave is offered to the shorter ones, and when what
    the last bin holds fits a smaller shape it goes there, so that few bins stay half empty.

    Args:
      loads: of the examples of one step.
      shapes: ascending in row_len and, where that is equal, in tokens.
      even: fill the streams of a bin evenly; how many bins there are does not depend on it.

    Raises:
      ValueError: an example that its shape cannot hold.
    """
    costs, longest = loads.costs, loads.longest
    row_lens = [s.row_len for s in shapes]
    at_home: list[list[int]] = [[] for _ in shapes]
    for i, n in enumerate(longest):
        if n > row_lens[-1]:
            raise ValueError(f"example {i} has a row of {n} tokens, a bin only {row_lens[-1]}")
        at_home[bisect_right(row_lens, row_lens[bisect_left(row_lens, n)]) - 1].append(i)
    bins: list[list[Bin]] = [[] for _ in shapes]
    waiting = set(range(len(costs)))
    for c in reversed(range(len(shapes))):
        shape, groups = shapes[c], shapes[c].groups
        own = [i for i in at_home[c] if i in waiting]
        if not own:
            continue
        part = shares(costs, shape)
        for i in own:
            if part[i] > 1:
                tokens, rows, scored, _ = costs[i]
                raise ValueError(
                    f"example {i} needs {tokens} tokens (the prompt once), {rows} rows and "
                    f"{scored} scored tokens; one stream of {shape} is too small"
                )
        streams, free = _first_fit(own, costs, part, shape)
        waiting.difference_update(own)
        while len(streams) % groups:
            streams.append([])
            free.append(list(shape.capacity))
        shorter = [i for home in at_home[:c] for i in home if i in waiting]
        for i in _descending(shorter, part):
            j = _place(costs[i], free)
            if j is not None:
                streams[j].append(i)
                waiting.remove(i)
        for first in range(0, len(streams), groups):
            found, to = streams[first : first + groups], c
            if first + groups == len(streams):
                found, to = _smaller(found, loads, shapes, c)
            bins[to].append(_spread(found, costs, shapes[to]) if even and groups > 1 else found)
    return bins


def _descending(items: Sequence[int], part: Sequence[float]) -> list[int]:
    return sorted(items, key=part.__getitem__, reverse=True)


def _place(cost: Load, free: Sequence[list[float]]) -> int | None:
    """The first stream with room, which the example takes."""
    tokens, rows, scored, places = cost
    for j, room in enumerate(free):
        if tokens <= room[0] and rows <= room[1] and scored <= room[2] and places <= room[3]:
            room[0] -= tokens
            room[1] -= rows
            room[2] -= scored
            room[3] -= places
            return j
    return None


def _first_fit(
    items: Sequence[int], costs: list[Load], part: list[float], shape: Shape
) -> tuple[list[list[int]], list[list[float]]]:
    """As many streams as the items need, the largest placed first, and the room left in each."""
    streams: list[list[int]] = []
    free: list[list[float]] = []
    capacity = shape.capacity
    for i in _descending(items, part):
        j = _place(costs[i], free)
        if j is None:
            streams.append([i])
            free.append([room - c for room, c in zip(capacity, costs[i], strict=True)])
        else:
            streams[j].append(i)
    return streams, free


def _smaller(found: Bin, loads: Loads, shapes: Sequence[Shape], c: int) -> tuple[Bin, int]:
    """The same examples in the smallest shape whose one bin holds them, and which shape that is."""
    items = [i for stream in found for i in stream]
    longest = max(loads.longest[i] for i in items)
    for to in sorted(range(len(shapes)), key=lambda j: shapes[j].slots):
        shape = shapes[to]
        if not shape.smaller_than(shapes[c]) or shape.row_len < longest:
            continue
        part = shares(loads.costs, shape)
        if max(part[i] for i in items) <= 1:
            streams, _ = _first_fit(items, loads.costs, part, shape)
            if len(streams) <= shape.groups:
                return streams + [[] for _ in range(shape.groups - len(streams))], to
    return found, c


def _spread(found: Bin, costs: list[Load], shape: Shape) -> Bin:
    """The same bin with evenly filled streams: each example goes where there is most room."""
    free = [list(shape.capacity) for _ in found]
    spread: Bin = [[] for _ in found]
    for i in _descending([i for stream in found for i in stream], shares(costs, shape)):
        order = sorted(range(len(found)), key=lambda j: -free[j][0])
        j = _place(costs[i], [free[o] for o in order])
        if j is None:
            return found
        spread[order[j]].append(i)
    return spread


def lay_out(
    bins: Sequence[Bin],
    get: Callable[[int], tuple[Example, int]],
    shape: Shape,
    fields: Mapping[str, Field],
    room: int,
) -> MicroBatches:
    """Writes bins into arrays with a leading axis of `room`; unfilled bins are 0 (index -1).

    Args:
      bins: for each bin the examples of its streams.
      get: number in a bin -> (example, its number in the data set).
      shape: of one bin.
      fields: extras to collate.
      room: length of the leading axis, at least `len(bins)`.
    """
    s, n, m, t, q, p, k, r = shape
    if shape.padded:
        arrays = [(s, n), (s, n), (s, q), (s, q), (s, 1, 1, r)]
    else:
        arrays = [(s, n), (s, n), (s, q), (s, q), (s, p, k, r), (s, m, t), (s, n, k)]
    layout = Layout(*(np.zeros((room, *a), np.int32) for a in arrays))
    mask = np.zeros((room, shape.examples, k, r), bool)
    extras = {
        name: np.zeros((room, shape.examples, *f.shape(k, r)), f.dtype)
        for name, f in fields.items()
    }
    extras["index"] = np.full((room, shape.examples), -1, np.int32)
    stack = MicroBatches(Batch(layout, mask, extras), np.int32(len(bins)))
    write = _write_padded if shape.padded else _write_flat
    for a, streams in enumerate(bins):
        batch = stack.micro_batch(a)
        slots: list[Example | None] = [None] * shape.examples
        for stream, members in enumerate(streams):
            for slot, i in enumerate(members, stream * p):
                slots[slot], batch.extras["index"][slot] = get(i)
        write(batch, slots, shape)
        for name, value in collate(slots, fields, k, r).items():
            batch.extras[name][:] = value
    return stack


def _write_flat(batch: Batch, examples: list[Example | None], shape: Shape) -> None:
    """One bin of streams in which a prompt stands once and its responses follow it."""
    s, n, m, t, _, p, k, r = shape
    count = np.arange(max(n, m * t), dtype=np.int32)
    layout, mask = batch.layout, batch.mask.reshape(s, p, k, r)
    assert layout.rows is not None and layout.inverse is not None
    layout.rows[:], layout.inverse[:] = n - 1, m * t
    for stream in range(s):
        tokens, positions, before, at, slots = (x[stream] for x in layout[:5])
        rows, inverse = layout.rows[stream], layout.inverse[stream]
        end = row = entry = 0
        for place, example in enumerate(examples[stream * p : (stream + 1) * p]):
            if example is None:
                continue
            start, length = end, len(example.prompt)
            end += length
            tokens[start:end], positions[start:end] = example.prompt, count[:length]
            copies = 0
            for j, (response, scored) in enumerate(
                zip(example.responses, example.scored, strict=True)
            ):
                more = len(response)
                if not more:  # no row, so that a missing response costs nothing
                    continue
                here, first = slice(end, end + more), row * t
                tokens[here], positions[here] = response, count[length : length + more]
                rows[row, :length], rows[row, length : length + more] = (
                    count[start : start + length],
                    count[here],
                )
                inverse[start : start + length, copies] = count[first : first + length]
                inverse[here, 0] = count[first + length : first + length + more]
                places = _scored_places(scored, length)
                entries = slice(entry, entry + len(places))
                at[entries], before[entries] = end + places, end + places - 1
                if len(places) and places[0] == 0:
                    before[entry] = start + length - 1
                slots[place, j, : len(places)] = count[entries]
                mask[stream, place, j, : len(places)] = True
                end, row, entry, copies = end + more, row + 1, entry + len(places), copies + 1


def _write_padded(batch: Batch, examples: list[Example | None], shape: Shape) -> None:
    """One bin of rows: prompt and response, then nothing."""
    count = np.arange(shape.tokens, dtype=np.int32)
    layout = batch.layout
    for b, example in enumerate(examples):
        if example is None:
            continue
        length = len(example.prompt)
        for j, (response, scored) in enumerate(zip(example.responses, example.scored, strict=True)):
            stream, end = b * shape.responses + j, length + len(response)
            if not len(response):
                continue
            layout.tokens[stream, :length], layout.tokens[stream, length:end] = (
                example.prompt,
                response,
            )
            layout.positions[stream, :end] = count[:end]
            places = _scored_places(scored, length)
            entries = slice(len(places))
            layout.at[stream, entries], layout.before[stream, entries] = (
                length + places,
                length + places - 1,
            )
            layout.slots[stream, 0, 0, entries] = count[entries]
            batch.mask[b, j, entries] = True


def _scored_places(scored: np.ndarray, prompt_len: int) -> np.ndarray:
    """Where the scored tokens of a response stand in it."""
    places = np.flatnonzero(scored)
    if len(places) and places[0] == 0 and prompt_len == 0:
        raise ValueError(
            "the first token of a response to an empty prompt has nothing before it, "
            "so it cannot be scored"
        )
    return places


def pack(examples: Sequence[Example], indices: Sequence[int], shape: Shape) -> list[Batch]:
    """Examples as bins of `shape`, flat or padded as it says.

    Args:
      examples: as many as there are; bins are added until all have a place.
      indices: the number of each in the data set, kept as `extras["index"]`.

    Raises:
      ValueError: an example that a bin cannot hold.
    """
    lengths = lengths_of(examples, shape.responses)
    most = lengths.scored_lens.max(initial=0)
    if most > shape.response_len:
        raise ValueError(f"a response has {most} scored tokens, the shape {shape.response_len}")
    [bins] = assign(loads_of(lengths), [shape])
    fields = fields_of(examples)
    stack = lay_out(bins, lambda i: (examples[i], int(indices[i])), shape, fields, len(bins))
    return [stack.micro_batch(a) for a in range(len(bins))]


def padded_shape(examples: int, responses: int, row_len: int, response_len: int) -> Shape:
    """The shape of `examples` examples of `responses` right-padded rows each."""
    return Shape(
        examples * responses, row_len, 0, row_len, response_len, 1, responses, response_len
    )
