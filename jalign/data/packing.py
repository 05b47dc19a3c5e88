"""Assigns examples to micro-batches ("bins") of static shape.

An example demands tokens (its prompt once, plus its responses), rows (its responses), scored tokens
and one slot; a stream has a fixed amount of each. First-fit-decreasing chooses the streams, from
lengths alone, so that every host computes the same bins without reading tokens. Then
`jalign.data.lay_out` writes the arrays.

Why not `grain.experimental`'s first-fit packing: it knows neither prompts that several responses
share nor a budget of rows and scored tokens beside that of tokens.

Shape letters as in `jalign.layout`: B prompts, K responses, R scored tokens, S streams, N tokens,
M rows, T tokens per row, Q scored tokens per stream, P prompts per stream.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from jalign.data.examples import Lengths

Bin = list[list[int]]
"""For each stream the numbers of its examples (padded bins: one list, the examples in order)."""


class Shape(NamedTuple):
    """The static shape of a bin. `rows` = 0: padded, S = B*K streams, each a row, N = T, Q = R.

    Attributes:
      streams: S.
      tokens: N, including the dummy token at the end.
      rows: M.
      row_len: T.
      scored: Q.
      prompts: P (padded: 1).
      responses: K.
      response_len: R, the most scored tokens of a response.
      prompt_len: most tokens of a prompt; None: unknown.
    """

    streams: int
    tokens: int
    rows: int
    row_len: int
    scored: int
    prompts: int
    responses: int
    response_len: int
    prompt_len: int | None = None

    @property
    def shared(self) -> int:
        """C, tokens at the start of a stream that hold all prompts shared by responses."""
        if self.responses == 1:
            return 0
        most = self.tokens if self.prompt_len is None else self.prompts * self.prompt_len
        return min(self.tokens, -(-most // 8) * 8)  # whole registers of a TPU

    @property
    def padded(self) -> bool:
        """Whether every stream is one row."""
        return self.rows == 0

    @property
    def examples(self) -> int:
        """B, the slots for examples."""
        return self.streams // self.responses if self.padded else self.streams * self.prompts

    @property
    def capacity(self) -> tuple[float, float, float, float]:
        """Tokens, rows, scored tokens, examples of a stream (padded: examples of a bin)."""
        if self.padded:
            return inf, inf, inf, self.examples
        return self.tokens - 1, self.rows, self.scored, self.prompts

    @property
    def groups(self) -> int:
        """Streams over which examples are distributed (padded: 1, as all slots are alike)."""
        return 1 if self.padded else self.streams

    @property
    def slots(self) -> int:
        """Token slots of a bin, S*N."""
        return self.streams * self.tokens

    @property
    def row_slots(self) -> int:
        """Token slots of the attention rows of a bin, S*M*T."""
        return self.streams * max(self.rows, 1) * self.row_len

    def smaller_than(self, other: Shape) -> bool:
        """Whether a bin of this shape is less work."""
        return self.slots < other.slots and self.row_slots <= other.row_slots


Demand = tuple[int, int, int, int]
"""Tokens (the prompt once), rows, scored tokens, and 1 for the slot of an example."""


class Demands(NamedTuple):
    """Demands of examples on a stream.

    Attributes:
      each: the demand of each example.
      longest: for each example the tokens of its longest row (prompt + one response).
      unshared: tokens of all rows together, each with its own copy of the prompt.
      shared: tokens of all examples together, prompts once.
    """

    each: list[Demand]
    longest: list[int]
    unshared: int
    shared: int


def demands_of(lengths: Lengths) -> Demands:
    """Demands of n examples, from their lengths."""
    prompt, response, scored = lengths
    rows, total = (response > 0).sum(1), response.sum(1)
    # lists of Python ints: the loops below compare single numbers, which numpy does 10 times slower
    columns = [c.tolist() for c in (prompt + total, rows, scored.sum(1))]
    return Demands(
        each=[(tokens, m, q, 1) for tokens, m, q in zip(*columns, strict=True)],
        longest=(prompt + response.max(1, initial=0)).tolist(),
        unshared=int((prompt * rows + total).sum()),
        shared=int((prompt + total).sum()),
    )


def fractions_of_stream(demands: Sequence[Demand], shape: Shape) -> list[float]:
    """The fraction of a stream that each example takes: the largest of its demands over the
    capacity.
    """
    tokens, rows, scored, slots = shape.capacity
    return [max(t / tokens, m / rows, q / scored, b / slots) for t, m, q, b in demands]


def assign(demands: Demands, shapes: Sequence[Shape], *, even: bool = True) -> list[list[Bin]]:
    """Which example goes to which bin and stream: for each shape its filled bins.

    The home of an example is the shape with the shortest rows that hold its longest one (the last
    of several such shapes). Shapes are filled from the longest rows down: first-fit-decreasing
    opens bins for the examples at home, shorter examples fill the remaining room, and the last bin
    shrinks to the smallest shape that holds its examples, so few bins stay half empty.

    Args:
      demands: of the examples of one step.
      shapes: ascending in row_len and, where that is equal, in tokens.
      even: fill the streams of a bin evenly; the number of bins does not depend on it.

    Raises:
      ValueError: an example that its shape cannot hold.
    """
    at_home = _homes(demands.longest, [s.row_len for s in shapes])
    bins: list[list[Bin]] = [[] for _ in shapes]
    waiting = set(range(len(demands.each)))
    # From the long rows down: long examples fit nowhere else, and short ones fill their gaps. The
    # other way round, the gaps of the short rows stay empty.
    for c in reversed(range(len(shapes))):
        shape, groups = shapes[c], shapes[c].groups
        at_this = [i for i in at_home[c] if i in waiting]
        if not at_this:
            continue
        fractions = fractions_of_stream(demands.each, shape)
        _check_fits(at_this, fractions, demands, shape)
        streams: Bin = []
        free: list[list[float]] = []
        _first_fit(_descending(at_this, fractions), demands, streams, free, shape)
        waiting.difference_update(at_this)
        # The shape is static: a bin has all its streams, also empty ones.
        while len(streams) % groups:
            streams.append([])
            free.append(list(shape.capacity))
        shorter = [i for home in at_home[:c] for i in home if i in waiting]
        left = _first_fit(_descending(shorter, fractions), demands, streams, free)
        waiting.difference_update(set(shorter).difference(left))
        for first in range(0, len(streams), groups):
            members, to = streams[first : first + groups], c
            # Only the last bin can be nearly empty: first-fit fills a stream before it opens one.
            if first + groups == len(streams):
                members, to = _shrink(members, demands, shapes, c)
            spread = even and groups > 1
            bins[to].append(_spread(members, demands, shapes[to]) if spread else members)
    return bins


def _homes(longest: Sequence[int], row_lens: Sequence[int]) -> list[list[int]]:
    """For each shape the examples whose home it is."""
    at_home: list[list[int]] = [[] for _ in row_lens]
    for i, n in enumerate(longest):
        if n > row_lens[-1]:
            raise ValueError(f"example {i} has a row of {n} tokens, a bin only {row_lens[-1]}")
        at_home[bisect_right(row_lens, row_lens[bisect_left(row_lens, n)]) - 1].append(i)
    return at_home


def _check_fits(
    items: Sequence[int], fractions: Sequence[float], demands: Demands, shape: Shape
) -> None:
    for i in items:
        if fractions[i] > 1:
            tokens, rows, scored, _ = demands.each[i]
            raise ValueError(
                f"example {i} needs {tokens} tokens (the prompt once), {rows} rows and "
                f"{scored} scored tokens; one stream of {shape} is too small"
            )


def _descending(items: Sequence[int], fractions: Sequence[float]) -> list[int]:
    # The sort is stable, so every host packs equal examples alike.
    return sorted(items, key=fractions.__getitem__, reverse=True)


def _first_fit(
    items: Sequence[int],
    demands: Demands,
    streams: Sequence[list[int]],
    free: Sequence[list[float]],
    new: Shape | None = None,
) -> list[int]:
    """Put each item, in order, into the first stream with room; `free` is the room left in each.

    Args:
      new: shape of the streams opened for items without room; None: open none.

    Returns:
      The items that are left over.
    """
    left = []
    for i in items:
        # Inlined and unrolled: the search of `budget` runs this loop some 10^5 times at start-up.
        tokens, rows, scored, slots = demands.each[i]
        for stream, room in zip(streams, free, strict=True):
            if tokens <= room[0] and rows <= room[1] and scored <= room[2] and slots <= room[3]:
                room[0] -= tokens
                room[1] -= rows
                room[2] -= scored
                room[3] -= slots
                stream.append(i)
                break
        else:
            if new is None:
                left.append(i)
            else:
                assert isinstance(streams, list) and isinstance(free, list)
                streams.append([i])
                free.append([a - b for a, b in zip(new.capacity, demands.each[i], strict=True)])
    return left


def _shrink(members: Bin, demands: Demands, shapes: Sequence[Shape], c: int) -> tuple[Bin, int]:
    """The same examples in one bin of the smallest shape that holds them, and its index."""
    items = [i for stream in members for i in stream]
    longest = max(demands.longest[i] for i in items)
    for to in sorted(range(len(shapes)), key=lambda j: shapes[j].slots):
        shape = shapes[to]
        if not shape.smaller_than(shapes[c]) or shape.row_len < longest:
            continue
        fractions = fractions_of_stream(demands.each, shape)
        if max(fractions[i] for i in items) <= 1:
            streams: Bin = []
            _first_fit(_descending(items, fractions), demands, streams, [], shape)
            if len(streams) <= shape.groups:
                return streams + [[] for _ in range(shape.groups - len(streams))], to
    return members, c


def _spread(members: Bin, demands: Demands, shape: Shape) -> Bin:
    """The same bin with evenly filled streams: each example goes to the emptiest one."""
    free = [list(shape.capacity) for _ in members]
    spread: Bin = [[] for _ in members]
    fractions = fractions_of_stream(demands.each, shape)
    for i in _descending([i for stream in members for i in stream], fractions):
        order = sorted(range(len(members)), key=lambda j: -free[j][0])
        if _first_fit([i], demands, [spread[j] for j in order], [free[j] for j in order]):
            return members  # the even assignment does not fit, the first-fit one does
    return spread
