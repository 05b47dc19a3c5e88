"""Choose the static bin shapes of a data set: row-length classes with a token budget each.

The shapes are searched on sampled batches by the cost model of `batch_spec.Cost`, because fixed
shapes cost more than the search saves. Cost of a batch relative to that of the search (token
lengths of nine data sets: the embedded pairs and lists, HH-RLHF, GSM8K, HellaSwag, OpenAssistant,
..; batches of 8 and 32 on one stream of at most 2048 tokens, of 64 and 256 on 8 of 8192):

    two row classes, N the mean batch, nothing tried              1.28 on average, 1.96 at worst
    at most 12 candidates: 1-3 row classes x 1-4 bins per batch   1.13 on average, 1.42 at worst
    at most 36 candidates: those x three amounts of spare room    1.08 on average, 1.39 at worst

Measured (DPO step of the embedded model on its pairs, 8 per step, CPU, best fifth of interleaved
steps on a busy machine): searched 232 ms, two fixed classes 259 ms (+12 %), 12 candidates 279 ms
(+20 %). The search tries 35 to 950 candidates in 0.2 to 13 s of one busy core, once per data set.
These runs were made by a scratch script that is not kept; `jalign bench step` times the search's
own shapes. Repeat the comparison on a quiet machine before the search is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jalign.data.batch_spec import BatchSpec
from jalign.data.examples import Lengths
from jalign.data.lay_out import padded_shape
from jalign.data.mismatch import worst_mismatched
from jalign.data.packing import Demands, Shape, assign, demands_of

FINER = 0.97  # a further shape is a further compilation: it must save this much
SPARE = (1.0, 1.25, 1.5, 2.0)  # room for rows and scored tokens, relative to their mean use


@dataclass(frozen=True)
class BatchShapes:
    """The shapes a run uses.

    Attributes:
      shapes: of one bin of each class, ascending in row_len.
      bounds: bins of each class that no batch can exceed.
      mean_bins: bins of each class per batch, mean over sampled batches.
      slots_per_token: token slots per token of the unshared rows, estimated on sampled batches.
      row_slots_per_token: the same of slots in attention rows.
      fill: fraction of the filled bins' token slots that hold a token.
      cost: mean cost of a batch in token slots, by which the shapes were chosen.
    """

    shapes: tuple[Shape, ...]
    bounds: tuple[int, ...]
    mean_bins: tuple[float, ...]
    slots_per_token: float
    row_slots_per_token: float
    fill: float
    cost: float

    def describe(self) -> list[str]:
        """The shapes in words, one line per class and one for all."""
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
            f"estimated {self.slots_per_token:.2f} token slots and {self.row_slots_per_token:.2f} "
            f"attention slots per token ({self.fill:.0%} of the slots hold a token; "
            "1.00 would be every response with its own copy of the prompt and nothing empty)"
        )
        return lines


def choose(
    lengths: Lengths, batches: Sequence[Lengths], spec: BatchSpec, *, copies: int = 1
) -> BatchShapes:
    """The shapes with the smallest mean cost over sampled batches.

    Args:
      lengths: of every example of the data set; with `spec.mismatch` [n, 1], without the second
        responses.
      batches: lengths of sampled batches as they will be packed.
      spec: how the data set is cut.
      copies: how often an example can occur in one batch (2 if batches straddle epochs).

    Raises:
      ValueError: rows longer than the last class, or an example larger than `max_tokens`.
    """
    longest = max(demands_of(lengths).longest)
    sets = _row_classes(longest, spec)
    search = _Search(spec, [demands_of(b) for b in batches], copies)
    best, *finer = [search.run(_classes(lengths, rows, spec.mismatch)) for rows in sets]
    for shapes in finer:
        if shapes.cost < FINER * best.cost:
            best = shapes
    return best


def _row_classes(longest: int, spec: BatchSpec) -> list[list[int]]:
    """Sets of row lengths to try, ascending."""
    up = _round_up(longest, spec.multiple)
    if spec.row_classes is None:
        half, quarter = (_round_up(-(-up // d), spec.multiple) for d in (2, 4))
        return [sorted(set(rows)) for rows in ((up,), (half, up), (quarter, half, up))]
    rows = [_round_up(t, spec.multiple) for t in spec.row_classes]
    if list(spec.row_classes) != sorted(set(spec.row_classes)) or rows[-1] < longest:
        raise ValueError(
            f"row_classes must ascend and end at the longest row, {longest} tokens, or more; "
            f"got {tuple(spec.row_classes)}"
        )
    return [sorted(set(rows))]


def most_bins(fractions: np.ndarray, batch_size: int, groups: int, copies: int = 1) -> int:
    """Bins that first-fit-decreasing can need for any `batch_size` examples.

    Let v_1 >= v_2 >= ... be the largest fractions of a stream that the examples of a batch can take
    (the largest of an example's demands over the capacity). When the r-th example opens stream U,
    each of the U - 1 streams before it holds more than 1 - v_r of the r - 1 larger examples, so
    v_1 + ... + v_(r-1) > (U - 1) * (1 - v_r); and at least m of them, if m * v_1 <= 1.

    Args:
      fractions: of a stream, for each example that can be packed into these bins.
      batch_size: examples per batch.
      groups: streams per bin.
      copies: how often an example can occur in one batch.
    """
    # A bound, not the observed maximum: shapes are static, and a batch that needed one bin more in
    # the middle of a run would have nowhere to go.
    v = np.repeat(-np.sort(-fractions), copies)[:batch_size]
    rank, before = np.arange(1, len(v) + 1), np.cumsum(v) - v
    least = max(int(1 / v[0] + 1e-9), 1)
    room = np.maximum(1 - v, 1e-9)
    # Rounded up: a bound one too small would stop a run, one too large costs little.
    by_fraction = np.maximum(np.ceil(before / room + 1e-6), 1)
    streams = np.minimum(by_fraction, 1 + (rank - 1) // least).max()
    return -(-int(streams) // groups)


def _round_up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple


class _Class(NamedTuple):
    row_len: int
    response_len: int
    responses: int
    demands: np.ndarray  # [n, 4] upper bound for each example whose home this may be
    prompt_len: int


def _classes(lengths: Lengths, rows: Sequence[int], mismatch: bool) -> list[_Class]:
    """Row lengths with upper bounds of their members; classes without members are left out."""
    classes, below, response_len, prompt_len = [], 0, 1, 0
    longest = np.array(demands_of(lengths).longest)
    for t in rows:
        worst, reach = lengths, longest
        if mismatch:
            # the second response is not known before the batch: any that the row can hold
            worst = worst_mismatched(lengths, t)
            reach = lengths.prompt_len + int(lengths.response_lens.max(initial=0))
        member = (longest <= t) & (reach > below)
        if member.any():
            response_len = max(response_len, int(worst.scored_lens[member].max()))
            # shorter examples fill what room is left in longer classes
            prompt_len = max(prompt_len, int(worst.prompt_len[member].max()))
            demands = np.array(demands_of(worst).each)[member]
            k = worst.response_lens.shape[1]
            classes.append(_Class(int(t), response_len, k, demands, prompt_len))
            below = t
    return classes


class _Candidate(NamedTuple):
    """Search variables of a shape: its class, N (padded: examples per stream) and spare room."""

    home: int
    size: int
    spare_rows: float = 1.25
    spare_scored: float = 1.25


@dataclass
class _Search:
    """Coordinate descent over the shapes of the classes, on sampled batches."""

    spec: BatchSpec
    batches: list[Demands]
    copies: int
    measured: dict[tuple[Shape, ...], BatchShapes] = field(default_factory=dict)

    def run(self, classes: list[_Class]) -> BatchShapes:
        """One shape per class; one class may get a second, smaller one if that pays."""
        sizes = [self._sizes(c) for c in classes]
        start = [_Candidate(c, s[len(s) // 2]) for c, s in enumerate(sizes)]
        best, candidates = self._descend(classes, sizes, start)
        for c, s in enumerate(sizes):
            if len(s) > 1:
                both = [_Candidate(c, s[(len(s) - 1) // 3]), _Candidate(c, s[-1])]
                more = self._descend(classes, sizes, [*start[:c], *both, *start[c + 1 :]])
                if more[0].cost < FINER * best.cost:
                    best, candidates = more
        if self.spec.padded:
            return best
        # Spare room last: it changes little while sizes are wrong, and multiplies the moves.
        return self._descend(classes, sizes, candidates, spare=True)[0]

    def _descend(
        self,
        classes: list[_Class],
        sizes: list[list[int]],
        candidates: list[_Candidate],
        spare: bool = False,
    ) -> tuple[BatchShapes, list[_Candidate]]:
        """Change one parameter of one shape at a time until the cost stops improving."""
        best, before = self._measure(classes, candidates), None
        while best.cost != before:
            before = best.cost
            for i in reversed(range(len(candidates))):
                moves = [{"size": n} for n in sizes[candidates[i].home]]
                if spare:
                    moves += [{name: x} for name in ("spare_rows", "spare_scored") for x in SPARE]
                for move in moves:
                    moved = candidates[i]._replace(**move)
                    other = sorted([*candidates[:i], moved, *candidates[i + 1 :]])
                    # Two candidates of one class and size hold the same: a wasted compilation.
                    if len({x[:2] for x in other}) == len(candidates) and other != candidates:
                        shapes = self._measure(classes, other)
                        if shapes.cost < best.cost:
                            best, candidates = shapes, other
        return best, candidates

    def _sizes(self, c: _Class) -> list[int]:
        """Candidates for N (padded: examples per stream), ascending."""
        spec, max_tokens = self.spec, self.spec.max_tokens
        most, mean = int(c.demands[:, 0].max()), c.demands[:, 0].mean()
        if spec.padded:
            each, row = -(-spec.batch_size // spec.streams), c.responses * c.row_len
            if row > max_tokens:
                raise ValueError(
                    f"{c.responses} padded rows of {c.row_len} tokens are more than "
                    f"max_tokens = {max_tokens}"
                )
            fit = min(max_tokens // row, each)
            # The smallest size for each number of bins; sizes in between need as many bins.
            return sorted({min(fit, -(-each // bins)) for bins in range(1, each + 1)})
        # + 1: the last token of a stream is the dummy that unused entries point at.
        least = _round_up(most + 1, spec.multiple)
        if least > max_tokens:
            raise ValueError(
                f"the longest example has {most} tokens, for which max_tokens must be at least "
                f"{least}, not {max_tokens}"
            )
        # Even fractions of a typical and of the largest batch, and powers of sqrt(2) in between.
        shared = [b.shared / spec.streams for b in self.batches]
        typical = mean * spec.batch_size / spec.streams
        totals = np.array([typical, np.mean(shared), np.max(shared)])
        fractions = (totals[:, None] / np.arange(1, 5)).ravel()
        powers = least * 2 ** (np.arange(16) / 2) - 1
        batch = _round_up(int(totals.max()) + 1, spec.multiple)
        largest = min(max_tokens // spec.multiple * spec.multiple, max(least, batch))
        sizes = {_round_up(int(x) + 1, spec.multiple) for x in (*fractions, *powers)}
        return sorted(x for x in sizes | {least} if least <= x <= largest)

    def _shape(self, c: _Class, candidate: _Candidate) -> Shape:
        spec, size = self.spec, candidate.size
        if spec.padded:
            return padded_shape(size * spec.streams, c.responses, c.row_len, c.response_len)
        most, mean = c.demands.max(0), c.demands.mean(0)
        rows = int(np.ceil(candidate.spare_rows * size * mean[1] / mean[0]))
        scored = _round_up(int(candidate.spare_scored * size * mean[2] / mean[0]), spec.multiple)
        # No more than the examples that fit need: where all are alike, spare room is never used.
        fit = max(1, (size - 1) // max(int(c.demands[:, 0].min()), 1))
        most_rows, most_scored = fit * int(most[1]), fit * max(int(most[2]), 1)
        # Every single example must fit: `assign` never splits one over streams.
        rows = max(int(most[1]), min(rows, most_rows, spec.batch_size * c.responses))
        scored = _round_up(max(int(most[2]), 1, min(scored, size, most_scored)), spec.multiple)
        # With no missing response rows run out before prompts do.
        prompts = min(spec.batch_size, max(1, rows // int(max(c.demands[:, 1].min(), 1))))
        sizes = (spec.streams, size, rows, c.row_len, scored, prompts, c.responses, c.response_len)
        return Shape(*sizes, c.prompt_len)

    def _measure(self, classes: list[_Class], candidates: list[_Candidate]) -> BatchShapes:
        """The bin shapes of these candidates, with their use and cost on the sampled batches."""
        shapes = tuple(self._shape(classes[x.home], x) for x in candidates)
        if shapes in self.measured:  # descents meet the same candidates again and again
            return self.measured[shapes]
        # Uneven: spreading changes no number of bins, and this is the search's innermost loop.
        filled = [
            [len(bins) for bins in assign(demands, shapes, even=False)] for demands in self.batches
        ]
        counts = np.mean(filled, 0)
        unshared = float(np.mean([b.unshared for b in self.batches]))
        held = np.mean([b.unshared if self.spec.padded else b.shared for b in self.batches])
        bounds = self._bounds(classes, candidates, shapes)
        slots, row_slots = ([getattr(s, name) for s in shapes] for name in ("slots", "row_slots"))
        # An allocated bin is sent to the device even when it is empty.
        cost = counts @ [self.spec.cost.of(s) for s in shapes] + 0.01 * np.dot(bounds, slots)
        self.measured[shapes] = BatchShapes(
            shapes,
            bounds,
            mean_bins=tuple(map(float, counts)),
            slots_per_token=float(counts @ slots) / unshared,
            row_slots_per_token=float(counts @ row_slots) / unshared,
            fill=float(held / (counts @ slots)),
            cost=float(cost) if all(bounds) else np.inf,  # a shape that nothing can use
        )
        return self.measured[shapes]

    def _bounds(
        self, classes: list[_Class], candidates: list[_Candidate], shapes: Sequence[Shape]
    ) -> tuple[int, ...]:
        """Bins of each shape that no batch exceeds: its own, and the last of those that shrink."""
        at_home = {x.home: i for i, x in enumerate(candidates)}  # the last, so the largest
        bounds = []
        for i, to in enumerate(shapes):
            bound = 0
            for home, j in at_home.items():
                if i == j:
                    fractions = np.max(classes[home].demands / np.array(to.capacity), 1)
                    bound += most_bins(fractions, self.spec.batch_size, to.groups, self.copies)
                # Only the last bin of a shape shrinks, so each larger shape adds one at most.
                elif to.smaller_than(shapes[j]) and to.row_len >= shapes[j].row_len:
                    bound += 1
            bounds.append(bound)
        return tuple(bounds)
