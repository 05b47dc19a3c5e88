"""Lays examples out in micro-batches ("bins") of static shape.

An example costs tokens (its prompt once, plus its responses), rows (its responses), scored tokens and one prompt place; a stream
has a fixed amount of each. First-fit-decreasing chooses the streams, from lengths alone, so that every host finds the same bins
without reading tokens; only then are arrays written, in the record that `jalign.layout` describes.

Shape letters as in `jalign.layout`: B prompts, K responses, R scored tokens, S streams, N tokens, M rows, T tokens per row,
Q scored tokens per stream, P prompts per stream.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jalign.data.examples import Example, Lengths
from jalign.layout import Layout

Bin = list[list[int]]
"""For each stream the numbers of its examples (padded bins: one list, the examples in order)."""


class Shape(NamedTuple):
    """The static shape of a bin. `rows` = 0 says padded: S = B*K streams, each one row of N = T tokens, Q = R.

    Attributes:
      streams: S. tokens: N, with the dummy in the last place. rows: M. row_len: T. scored: Q. prompts: P (padded: 1).
      responses: K. response_len: R, the most scored tokens of a response.
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
    def capacity(self) -> np.ndarray:
        """[4] tokens, rows, scored tokens and examples that one stream takes (padded: one bin, bounded by places only)."""
        if self.padded:
            return np.array([np.inf, np.inf, np.inf, self.examples])
        return np.array([self.tokens - 1, self.rows, self.scored, self.prompts], float)

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


class Loads(NamedTuple):
    """What examples take of a stream.

    Attributes:
      costs: [n, 4] tokens (the prompt once), rows, scored tokens, and 1 for the place.
      longest: [n] tokens of the longest row (prompt + one response).
      unshared: [n] tokens of all rows, each with its own copy of the prompt.
    """

    costs: np.ndarray
    longest: np.ndarray
    unshared: np.ndarray


def loads_of(lengths: Lengths) -> Loads:
    """What each of n examples takes, from its lengths."""
    prompt, response, scored = lengths
    rows, total = (response > 0).sum(1), response.sum(1)
    costs = np.stack([prompt + total, rows, scored.sum(1), np.ones_like(prompt)], 1)
    return Loads(costs, prompt + response.max(1, initial=0), prompt * rows + total)


def lengths_of(examples: Sequence[Example], responses: int) -> Lengths:
    """Token counts of a list of examples, K = `responses`."""
    response, scored = np.zeros((2, len(examples), responses), np.int32)
    for i, e in enumerate(examples):
        if len(e.responses) > responses:
            raise ValueError(f"example {i} has {len(e.responses)} responses, the shape {responses}")
        response[i, : len(e.responses)] = [len(r) for r in e.responses]
        scored[i, : len(e.scored)] = [np.count_nonzero(s) for s in e.scored]
    return Lengths(np.array([len(e.prompt) for e in examples], np.int32), response, scored)


def share(costs: np.ndarray, shape: Shape) -> np.ndarray:
    """[n] the part of a stream that each example takes: the largest of its costs over the capacity."""
    return (costs / shape.capacity).max(1)


def assign(loads: Loads, shapes: Sequence[Shape]) -> list[list[Bin]]:
    """Which example goes to which bin and stream: for each shape its filled bins.

    An example is at home in the shape with the shortest rows that hold its longest one; of shapes
    with equal rows in the last. Shapes are filled from the longest rows down. First-fit-decreasing
    opens bins for those at home, the room they leave is offered to the shorter ones, and if what the
    last bin holds fits a smaller shape it goes there, so that few bins stay half empty.

    Args:
      loads: of the examples of one step.
      shapes: ascending in row_len and, where that is equal, in tokens.

    Raises:
      ValueError: an example that its shape cannot hold.
    """
    row_lens = [s.row_len for s in shapes]
    fits = np.searchsorted(row_lens, loads.longest)
    for i in np.flatnonzero(fits == len(shapes)):
        raise ValueError(
            f"example {i} has a row of {loads.longest[i]} tokens, the bins only {row_lens[-1]}"
        )
    home = np.searchsorted(row_lens, np.array(row_lens)[fits], side="right") - 1
    costs = [tuple(c) for c in loads.costs.tolist()]
    bins: list[list[Bin]] = [[] for _ in shapes]
    waiting = np.ones(len(costs), bool)
    for c in reversed(range(len(shapes))):
        own, shorter = np.flatnonzero(home == c), np.flatnonzero(waiting & (home < c))
        own = own[waiting[own]]
        if not len(own):
            continue
        part = share(loads.costs, shapes[c])
        if part[own].max() > 1:
            i = own[part[own].argmax()]
            raise ValueError(f"example {i} needs {_words(costs[i])}; a stream has {shapes[c]}")
        streams, free = _first_fit(_descending(own, part), costs, shapes[c])
        streams += [[] for _ in range(-len(streams) % shapes[c].groups)]
        free += [list(shapes[c].capacity) for _ in range(len(streams) - len(free))]
        for i in _descending(shorter, part):
            j = _place(costs[i], free)
            if j is not None:
                streams[j].append(i)
        for first in range(0, len(streams), shapes[c].groups):
            found, to = streams[first : first + shapes[c].groups], c
            waiting[[i for stream in found for i in stream]] = False
            if first + shapes[c].groups == len(streams):
                found, to = _smaller(found, loads, costs, shapes, c)
            bins[to].append(_spread(found, costs, share(loads.costs, shapes[to]), shapes[to]))
    return bins


def _words(cost: tuple[int, ...]) -> str:
    return f"{cost[0]} tokens (prompt once), {cost[1]} rows and {cost[2]} scored tokens"


def _descending(items: np.ndarray, part: np.ndarray) -> list[int]:
    return items[np.argsort(-part[items], kind="stable")].tolist()


def _place(cost: tuple[int, ...], free: list[list[float]]) -> int | None:
    """The first stream with room, which it takes."""
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
    items: list[int], costs: list[tuple[int, ...]], shape: Shape
) -> tuple[list[list[int]], list[list[float]]]:
    """As many streams as it takes, and the room left in each."""
    streams: list[list[int]] = []
    free: list[list[float]] = []
    capacity = shape.capacity.tolist()
    for i in items:
        j = _place(costs[i], free)
        if j is None:
            streams.append([])
            free.append([room - c for room, c in zip(capacity, costs[i], strict=True)])
            j = -1
        streams[j].append(i)
    return streams, free


def _smaller(
    found: Bin, loads: Loads, costs: list[tuple[int, ...]], shapes: Sequence[Shape], c: int
) -> tuple[Bin, int]:
    """The same examples in the smallest shape whose one bin holds them, and which shape that is."""
    items = np.array([i for stream in found for i in stream])
    for to in sorted(range(len(shapes)), key=lambda j: shapes[j].slots):
        smaller = (
            shapes[to].slots < shapes[c].slots and loads.longest[items].max() <= shapes[to].row_len
        )
        if smaller and (part := share(loads.costs, shapes[to]))[items].max() <= 1:
            streams, _ = _first_fit(_descending(items, part), costs, shapes[to])
            if len(streams) <= shapes[to].groups:
                return streams + [[] for _ in range(shapes[to].groups - len(streams))], to
    return found, c


def _spread(found: Bin, costs: list[tuple[int, ...]], part: np.ndarray, shape: Shape) -> Bin:
    """The same bin with its streams filled evenly: each example where there is least, if that fits."""
    if shape.groups == 1:
        return found
    free = [shape.capacity.tolist() for _ in found]
    spread: Bin = [[] for _ in found]
    level = [0.0] * len(found)
    for i in sorted((i for stream in found for i in stream), key=lambda i: -part[i]):
        order = sorted(range(len(found)), key=level.__getitem__)
        j = _place(costs[i], [free[o] for o in order])
        if j is None:
            return found
        spread[order[j]].append(i)
        level[order[j]] += part[i]
    return spread


class Field(NamedTuple):
    """How an extra becomes an array: axes 0 [B], 1 [B, K] (one value per response), 2 [B, K, R] (one per scored token)."""

    axes: int
    dtype: type


KINDS = {"b": np.bool_, "i": np.int32, "u": np.int32, "f": np.float32}


def fields_of(examples: Sequence[Example]) -> dict[str, Field]:
    """The extras of examples as fields of a batch; 64-bit numbers become 32-bit.

    With one response, [length] may stand for [1, length]; it means one per response only if every length is 1.

    Raises:
      ValueError: an extra that is neither a scalar, nor [k], nor [k, scored tokens] numbers.
    """
    fields: dict[str, Field] = {}
    for example in examples:
        k = len(example.responses)
        for name, value in example.extras.items():
            value = np.asarray(value)
            axes = 2 if k == 1 and value.ndim == 1 and len(value) != 1 else value.ndim
            if value.dtype.kind not in KINDS or axes > 2 or (axes and k > 1 and len(value) != k):
                raise ValueError(
                    f"extra {name!r} is {value.dtype} {value.shape}; it must be numbers: a scalar, "
                    f"one per response [{k}], or one per scored token [{k}, length]"
                )
            axes = max(axes, fields[name].axes if name in fields else 0)
            fields[name] = Field(axes, KINDS[value.dtype.kind])
    return fields


def collate(
    examples: Sequence[Example | None], fields: Mapping[str, Field], responses: int, most: int
) -> dict[str, np.ndarray]:
    """Stacks extras to [B], [B, K] or [B, K, R]; missing examples (None), responses, tokens hold 0.

    Args:
      examples: B of them.
      fields: what to stack.
      responses: K.
      most: R.
    """
    sizes = (len(examples), responses, most)
    out = {name: np.zeros(sizes[: 1 + f.axes], f.dtype) for name, f in fields.items()}
    for b, example in enumerate(examples):
        for name, field in fields.items() if example is not None else ():
            value = np.asarray(example.extras[name])
            if field.axes == 2:
                # What lies beyond R belongs to no scored token: a cache is as wide as the longest.
                value = np.atleast_2d(value)[:, :most]
            if value.ndim != field.axes:
                raise ValueError(
                    f"extra {name!r} has the shape {value.shape} here and {field.axes} axes elsewhere"
                )
            out[name][(b, *(slice(n) for n in value.shape))] = value
    return out


def lay_out(
    bins: Sequence[Bin],
    get: Callable[[int], tuple[Example, int]],
    shape: Shape,
    fields: Mapping[str, Field],
    parts: int,
) -> dict[str, Any]:
    """Writes bins into arrays with a leading axis of `parts`; what follows the bins is 0 (index -1).

    Args:
      bins: for each bin the examples of its streams.
      get: number in a bin -> (example, its number in the data set).
      shape: of one bin.
      fields: extras to collate.
      parts: length of the leading axis, at least `len(bins)`.

    Returns:
      {"layout": Layout of [parts, ...], "mask": bool [parts, B, K, R],
      "extras": {..., "index": int32 [parts, B]}}
    """
    s, n, m, t, q, p, k, r = shape
    if shape.padded:
        arrays = [(s, n), (s, n), (s, q), (s, q), (s, 1, 1, r)]
    else:
        arrays = [(s, n), (s, n), (s, q), (s, q), (s, p, k, r), (s, m, t), (s, n, k)]
    layout = Layout(*(np.zeros((parts, *a), np.int32) for a in arrays))
    mask = np.zeros((parts, shape.examples, k, r), bool)
    sizes = (parts, shape.examples, k, r)
    extras = {name: np.zeros(sizes[: 2 + f.axes], f.dtype) for name, f in fields.items()}
    extras["index"] = np.full((parts, shape.examples), -1, np.int32)
    for a, streams in enumerate(bins):
        part = Layout(*(None if x is None else x[a] for x in layout))
        found: list[Example | None] = [None] * shape.examples
        for stream, numbers in enumerate(streams):
            for place, i in enumerate(numbers, stream * p):
                found[place], extras["index"][a, place] = get(i)
        (_write_padded if shape.padded else _write_flat)(part, mask[a], found, shape)
        for name, value in collate(found, fields, k, r).items():
            extras[name][a] = value
    return {"layout": layout, "mask": mask, "extras": extras}


def _write_flat(part: Layout, mask: np.ndarray, found: list[Example | None], shape: Shape) -> None:
    """One bin of streams in which a prompt stands once and its responses follow it."""
    s, n, m, t, _, p, k, r = shape
    count = np.arange(max(n, m * t), dtype=np.int32)
    part.rows[:], part.inverse[:] = n - 1, m * t
    mask = mask.reshape(s, p, k, r)
    for stream in range(s):
        tokens, positions, before, at, slots, rows, inverse = (x[stream] for x in part)
        end = row = entry = 0
        for place, example in enumerate(found[stream * p : (stream + 1) * p]):
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


def _write_padded(
    part: Layout, mask: np.ndarray, found: list[Example | None], shape: Shape
) -> None:
    """One bin of rows: prompt and response, then nothing."""
    count = np.arange(shape.tokens, dtype=np.int32)
    for b, example in enumerate(found):
        if example is None:
            continue
        length = len(example.prompt)
        for j, (response, scored) in enumerate(zip(example.responses, example.scored, strict=True)):
            stream, end = b * shape.responses + j, length + len(response)
            if not len(response):
                continue
            part.tokens[stream, :length], part.tokens[stream, length:end] = example.prompt, response
            part.positions[stream, :end] = count[:end]
            places = _scored_places(scored, length)
            entries = slice(len(places))
            part.at[stream, entries], part.before[stream, entries] = (
                length + places,
                length + places - 1,
            )
            part.slots[stream, 0, 0, entries] = count[entries]
            mask[b, j, entries] = True


def _scored_places(scored: np.ndarray, prompt_len: int) -> np.ndarray:
    """Where the scored tokens of a response stand in it."""
    places = np.flatnonzero(scored)
    if len(places) and places[0] == 0 and prompt_len == 0:
        raise ValueError(
            "the first token of a response to an empty prompt has nothing before it, so it cannot be scored"
        )
    return places


def pack(examples: Sequence[Example], indices: Sequence[int], shape: Shape) -> list[dict[str, Any]]:
    """Examples as bins of `shape`, flat or padded as it says.

    Args:
      examples: as many as there are; bins are added until all have a place.
      indices: the number of each in the data set, kept as `extras["index"]`.

    Returns:
      For each bin {"layout": Layout, "mask": bool [B, K, R], "extras": {..., "index": int32 [B]}}.

    Raises:
      ValueError: an example that a bin cannot hold.
    """
    [bins] = assign(loads_of(lengths_of(examples, shape.responses)), [shape])
    fields = fields_of(examples)
    stack = lay_out(bins, lambda i: (examples[i], int(indices[i])), shape, fields, len(bins))
    return [
        {
            "layout": Layout(*(None if x is None else x[a] for x in stack["layout"])),
            "mask": stack["mask"][a],
            "extras": {name: x[a] for name, x in stack["extras"].items()},
        }
        for a in range(len(bins))
    ]


def padded_shape(examples: int, responses: int, row_len: int, response_len: int) -> Shape:
    """The shape of `examples` examples of `responses` right-padded rows each."""
    return Shape(
        examples * responses, row_len, 0, row_len, response_len, 1, responses, response_len
    )
