"""Chooses the static bin shapes of a data set: row-length classes, and for each a token budget.

Work is counted in token slots: 1 is what the linear layers cost for one token. A filled bin costs,
per stream,

    N + M*T*(place + pair*T) + head*Q + bin

* N: every token slot is computed, used or not.
* place: moving one place of an attention row (gather of q, k, v and of the result), about 4 D
  numbers each way against the 24 D^2 operations of the linear layers.
* pair*T: causal attention of a row is 2 T^2 D operations per layer, so pair = 1 / (12 D).
* head: the unembedding of a scored token, 2 V D operations against 24 D^2 per layer.
* bin: what a bin costs whatever its size: reading the weights and adding up gradients.

The defaults are those of a model of width 2048 with 20 layers and a vocabulary of 100,000 on an
accelerator. Which shapes come out depends little on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jalign.data.examples import Lengths
from jalign.data.packing import Loads, Shape, assign, loads_of, padded_shape

FINER = 0.97  # a further shape is a further compilation: it must save this much
SPARE = (1.0, 1.25, 1.5, 2.0)  # room for rows and scored tokens, relative to their mean share


class Cost(NamedTuple):
    """What things cost, in token slots (see the module docstring)."""

    place: float = 0.05
    pair: float = 1 / (12 * 2048)
    head: float = 0.2
    bin: float = 128.0

    @classmethod
    def of_model(cls, width: int, depth: int, vocab_size: int, bin: float) -> Cost:
        """For a decoder of this size; `bin` is a device's: about 32 on a CPU, 128 elsewhere."""
        return cls(pair=1 / (12 * width), head=vocab_size / (12 * width * depth), bin=bin)

    def of(self, shape: Shape) -> float:
        """Cost of one filled bin."""
        attention = shape.row_places * (self.place + self.pair * shape.row_len)
        head = self.head * shape.streams * shape.scored
        streams = 1 if shape.padded else shape.streams
        return shape.slots + attention + head + self.bin * streams


@dataclass(frozen=True)
class Plan:
    """The shapes a run uses.

    Attributes:
      shapes: of one bin of each class, ascending in row_len.
      bounds: bins of each class that no batch can exceed.
      mean_bins: bins of each class per batch, mean over sampled batches.
      slots_per_token: token slots per token of the unshared rows, estimated on sampled batches.
      row_places_per_token: the same of places in attention rows.
      fill: fraction of the filled bins' token slots that hold a token.
      cost: mean cost of a batch in token slots, by which the plan was chosen.
    """

    shapes: tuple[Shape, ...]
    bounds: tuple[int, ...]
    mean_bins: tuple[float, ...]
    slots_per_token: float
    row_places_per_token: float
    fill: float
    cost: float

    def describe(self) -> list[str]:
        """The plan in words, one line per class and one for the whole."""
        lines = []
        for s, bound, mean in zip(self.shapes, self.bounds, self.mean_bins, strict=True):
            if s.padded:
                what = f"{s.examples} examples x {s.responses} padded rows"
            else:
                what = (
                    f"{s.streams} x {s.tokens} tokens, per stream at most {s.rows} rows, "
                    f"{s.scored} scored tokens, {s.prompts} prompts"
                )
            lines.append(
                f"rows up to {s.row_len} tokens: bins of {what}; "
                f"{mean:.1f} bins per batch, never more than {bound}"
            )
        lines.append(
            f"estimated {self.slots_per_token:.2f} token slots and {self.row_places_per_token:.2f} "
            f"attention places per token ({self.fill:.0%} of the slots hold a token; "
            "1.00 would be every response with its own copy of the prompt and nothing empty)"
        )
        return lines


def choose(
    lengths: Lengths,
    batches: Sequence[Lengths],
    batch_size: int,
    *,
    layout: str = "flat",
    streams: int = 1,
    max_tokens: int = 8192,
    row_classes: Sequence[int] | None = None,
    multiple: int = 64,
    copies: int = 1,
    mismatch: bool = False,
    cost: Cost = Cost(),
) -> Plan:
    """The shapes with the smallest mean cost over sampled batches.

    Args:
      lengths: of every example of the data set; with `mismatch` [n, 1], before mates are added.
      batches: lengths of sampled batches as they will be packed.
      batch_size: examples per step.
      layout: "flat" or "padded".
      streams: S; padded bins hold a multiple of it in examples.
      max_tokens: most token slots per stream (padded: per `streams`-th part of a bin).
      row_classes: the row lengths, ascending; None tries a half and a quarter of the longest.
      multiple: row lengths and token budgets are multiples of it.
      copies: how often an example can occur in one batch (2 if batches straddle epochs).
      mismatch: the second response of an example is any other's that its longest row allows.

    Raises:
      ValueError: rows longer than the last class, or an example larger than `max_tokens`.
    """
    longest = max(loads_of(lengths).longest)
    up = _round_up(longest, multiple)
    if row_classes is None:
        half, quarter = (_round_up(-(-up // d), multiple) for d in (2, 4))
        sets = [(up,), (half, up), (quarter, half, up)]
    else:
        sets = [tuple(_round_up(t, multiple) for t in row_classes)]
        if list(row_classes) != sorted(set(row_classes)) or sets[0][-1] < longest:
            raise ValueError(
                f"row_classes must ascend and end at the longest row, {longest} tokens, or more; "
                f"got {tuple(row_classes)}"
            )
    search = _Search(
        batches=[loads_of(b) for b in batches],
        batch_size=batch_size,
        padded=layout == "padded",
        streams=streams,
        max_tokens=max_tokens,
        multiple=multiple,
        copies=copies,
        cost=cost,
    )
    best, *finer = [search.plan(_classes(lengths, sorted(set(t)), mismatch))[0] for t in sets]
    for plan in finer:
        if plan.cost < FINER * best.cost:
            best = plan
    return best


def most_bins(part: np.ndarray, batch_size: int, groups: int, copies: int = 1) -> int:
    """Bins that first-fit-decreasing can need for any `batch_size` examples.

    Let v_1 >= v_2 >= ... be the largest shares of a stream that the examples of a batch can have
    (the largest of an example's costs over the capacity). When the r-th example opens stream U,
    each of the U - 1 streams before it holds more than 1 - v_r of the r - 1 larger examples, so
    v_1 + ... + v_(r-1) > (U - 1) * (1 - v_r); and at least m of them, if m * v_1 <= 1.

    Args:
      part: share of a stream that each example takes which can be packed into these bins.
      batch_size: examples per batch.
      groups: streams per bin.
      copies: how often an example can occur in one batch.
    """
    v = np.repeat(-np.sort(-part), copies)[:batch_size]
    rank, before = np.arange(1, len(v) + 1), np.cumsum(v) - v
    least = max(int(1 / v[0] + 1e-9), 1)
    room = np.maximum(1 - v, 1e-9)
    by_share = np.maximum(np.ceil(before / room + 1e-6), 1)
    streams = np.minimum(by_share, 1 + (rank - 1) // least).max()
    return -(-int(streams) // groups)


class _Class(NamedTuple):
    row_len: int
    response_len: int
    responses: int
    costs: np.ndarray  # [n, 4] the most that each example that can be at home here takes


def _round_up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple


def _classes(lengths: Lengths, rows: Sequence[int], mismatch: bool) -> list[_Class]:
    """Row lengths and the worst that can be at home there; those without members are left out."""
    classes, below, most = [], 0, 1
    longest = np.array(loads_of(lengths).longest)
    for t in rows:
        worst = lengths
        if mismatch:
            most_response = int(lengths.response_lens.max(initial=0))
            most_scored = int(lengths.scored_lens.max(initial=0))
            room = np.maximum(t - lengths.prompt_len, 0)
            worst = Lengths(
                lengths.prompt_len,
                np.stack([lengths.response_lens[:, 0], np.minimum(room, most_response)], 1),
                np.stack([lengths.scored_lens[:, 0], np.minimum(room, most_scored)], 1),
            )
            member = (longest <= t) & (lengths.prompt_len + most_response > below)
        else:
            member = (longest <= t) & (longest > below)
        if member.any():
            most = max(most, int(worst.scored_lens[member].max()))
            responses = worst.response_lens.shape[1]
            classes.append(_Class(int(t), most, responses, np.array(loads_of(worst).costs)[member]))
            below = t
    return classes


class _Choice(NamedTuple):
    """What is searched for one shape: its class, N (padded: examples per stream) and spare room."""

    home: int
    size: int
    spare_rows: float = 1.25
    spare_scored: float = 1.25


@dataclass
class _Search:
    """Coordinate descent over the shapes of the classes, on sampled batches."""

    batches: list[Loads]
    batch_size: int
    padded: bool
    streams: int
    max_tokens: int
    multiple: int
    copies: int
    cost: Cost
    measured: dict[tuple[Shape, ...], Plan] = field(default_factory=dict)

    def plan(self, classes: list[_Class]) -> tuple[Plan, list[_Choice]]:
        """One shape per class; for one also a smaller shape for what is left, where that pays."""
        sizes = [self._sizes(c) for c in classes]
        start = [_Choice(c, s[len(s) // 2]) for c, s in enumerate(sizes)]
        best = self._descend(classes, sizes, start)
        for c, s in enumerate(sizes):
            if len(s) > 1:
                both = [_Choice(c, s[(len(s) - 1) // 3]), _Choice(c, s[-1])]
                found = self._descend(classes, sizes, [*start[:c], *both, *start[c + 1 :]])
                if found[0].cost < FINER * best[0].cost:
                    best = found
        return best if self.padded else self._descend(classes, sizes, best[1], spare=True)

    def _descend(
        self,
        classes: list[_Class],
        sizes: list[list[int]],
        chosen: list[_Choice],
        spare: bool = False,
    ) -> tuple[Plan, list[_Choice]]:
        """Changes one number of one shape at a time until nothing improves."""
        best, before = self._measure(classes, chosen), None
        while best.cost != before:
            before = best.cost
            for i in reversed(range(len(chosen))):
                moves = [{"size": n} for n in sizes[chosen[i].home]]
                if spare:
                    moves += [{name: x} for name in ("spare_rows", "spare_scored") for x in SPARE]
                for move in moves:
                    other = sorted([*chosen[:i], chosen[i]._replace(**move), *chosen[i + 1 :]])
                    if len({x[:2] for x in other}) == len(chosen) and other != chosen:
                        plan = self._measure(classes, other)
                        if plan.cost < best.cost:
                            best, chosen = plan, other
        return best, chosen

    def _sizes(self, c: _Class) -> list[int]:
        """What N (padded: examples per stream) may be, ascending."""
        most, mean = int(c.costs[:, 0].max()), c.costs[:, 0].mean()
        if self.padded:
            each, row = -(-self.batch_size // self.streams), c.responses * c.row_len
            if row > self.max_tokens:
                raise ValueError(
                    f"{c.responses} padded rows of {c.row_len} tokens are more than "
                    f"max_tokens = {self.max_tokens}"
                )
            fit = min(self.max_tokens // row, each)
            return sorted({min(fit, -(-each // parts)) for parts in range(1, each + 1)})
        least = _round_up(most + 1, self.multiple)
        if least > self.max_tokens:
            raise ValueError(
                f"the longest example has {most} tokens, for which max_tokens must be at least "
                f"{least}, not {self.max_tokens}"
            )
        # Even parts of a typical and of the largest batch, and steps in between.
        loads = [b.shared / self.streams for b in self.batches]
        totals = np.array([mean * self.batch_size / self.streams, np.mean(loads), np.max(loads)])
        parts = (totals[:, None] / np.arange(1, 5)).ravel()
        steps = least * 2 ** (np.arange(16) / 2) - 1
        whole = _round_up(int(totals.max()) + 1, self.multiple)
        largest = min(self.max_tokens // self.multiple * self.multiple, max(least, whole))
        sizes = {_round_up(int(x) + 1, self.multiple) for x in (*parts, *steps)}
        return sorted(x for x in sizes | {least} if least <= x <= largest)

    def _shape(self, c: _Class, choice: _Choice) -> Shape:
        if self.padded:
            return padded_shape(choice.size * self.streams, c.responses, c.row_len, c.response_len)
        most, mean = c.costs.max(0), c.costs.mean(0)
        rows = int(np.ceil(choice.spare_rows * choice.size * mean[1] / mean[0]))
        scored = _round_up(
            int(choice.spare_scored * choice.size * mean[2] / mean[0]), self.multiple
        )
        rows = max(int(most[1]), min(rows, self.batch_size * c.responses))
        scored = max(_round_up(max(int(most[2]), 1), self.multiple), min(scored, choice.size))
        # With no missing response rows run out before prompts do.
        prompts = min(self.batch_size, max(1, rows // int(max(c.costs[:, 1].min(), 1))))
        return Shape(
            self.streams, choice.size, rows, c.row_len, scored, prompts, c.responses, c.response_len
        )

    def _measure(self, classes: list[_Class], chosen: list[_Choice]) -> Plan:
        """The plan that consists of these shapes."""
        shapes = tuple(self._shape(classes[x.home], x) for x in chosen)
        if shapes not in self.measured:
            self.measured[shapes] = self._simulate(classes, chosen, shapes)
        return self.measured[shapes]

    def _simulate(
        self, classes: list[_Class], chosen: list[_Choice], shapes: tuple[Shape, ...]
    ) -> Plan:
        filled = [
            [len(bins) for bins in assign(loads, shapes, even=False)] for loads in self.batches
        ]
        counts = np.mean(filled, 0)
        unshared = float(np.mean([b.unshared for b in self.batches]))
        held = np.mean([b.unshared if self.padded else b.shared for b in self.batches])
        bounds = self._bounds(classes, chosen, shapes)
        slots, places = ([getattr(s, name) for s in shapes] for name in ("slots", "row_places"))
        # An allocated bin is sent to the device even when it is empty.
        cost = counts @ [self.cost.of(s) for s in shapes] + 0.01 * np.dot(bounds, slots)
        return Plan(
            shapes,
            bounds,
            mean_bins=tuple(map(float, counts)),
            slots_per_token=float(counts @ slots) / unshared,
            row_places_per_token=float(counts @ places) / unshared,
            fill=float(held / (counts @ slots)),
            cost=float(cost) if all(bounds) else np.inf,  # a shape that nothing can use
        )

    def _bounds(
        self, classes: list[_Class], chosen: list[_Choice], shapes: Sequence[Shape]
    ) -> tuple[int, ...]:
        """Bins of each shape that no batch exceeds: its own, and the last of those that shrink."""
        at_home = {x.home: i for i, x in enumerate(chosen)}  # the last, so the largest, of a class
        bounds = []
        for i, to in enumerate(shapes):
            bound = 0
            for home, j in at_home.items():
                if i == j:
                    part = np.max(classes[home].costs / np.array(to.capacity), 1)
                    bound += most_bins(part, self.batch_size, to.groups, self.copies)
                elif to.smaller_than(shapes[j]) and to.row_len >= shapes[j].row_len:
                    bound += 1
            bounds.append(bound)
        return tuple(bounds)
