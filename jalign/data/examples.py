"""Tokenized examples: a prompt, K responses, masks of scored tokens, extra columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, overload

import numpy as np

from jalign.data.rows import Places


class Example(NamedTuple):
    """One prompt and its K responses as token ids.

    Attributes:
      prompt: [p] int32, the BOS first when the tokenizer adds one; p may be 0.
      responses: K arrays [r_k] int32, the EOS last; r_k >= 1.
      scored: K arrays [r_k] bool, True on tokens that enter the loss. When p is 0 the first
        token of a response is False, as no token precedes it.
      extras: numpy scalars and arrays: margin, label, weight, rating, ratings [K],
        attribute_ratings [A], step_labels [steps], row, source, ...
    """

    prompt: np.ndarray
    responses: tuple[np.ndarray, ...]
    scored: tuple[np.ndarray, ...]
    extras: Mapping[str, np.ndarray]


class Lengths(NamedTuple):
    """Token counts. K is the largest number of responses; missing responses have length 0.

    Attributes:
      prompt_len: [n] int32.
      response_lens: [n, K] int32.
      scored_lens: [n, K] int32.
    """

    prompt_len: np.ndarray
    response_lens: np.ndarray
    scored_lens: np.ndarray

    def take(self, indices: Sequence[int] | np.ndarray) -> Lengths:
        """The lengths of some examples."""
        return Lengths(*(x[np.asarray(indices, int)] for x in self))

    @property
    def row_tokens(self) -> np.ndarray:
        """[n] tokens of all rows of an example, the prompt once per response."""
        return (self.prompt_len[:, None] * (self.response_lens > 0) + self.response_lens).sum(1)


Responses = list[tuple[np.ndarray, np.ndarray]]
"""For each response its token ids and which of them are scored."""


@dataclass
class Report:
    """Statistics of data preparation. Counts are in examples unless the name contains tokens.

    Attributes:
      kind: the recognized kind of record.
      explanation: why it was recognized as that, in a sentence.
      read: rows read.
      kept: examples kept.
      dropped: reason -> rows dropped for it.
      flipped: labels inverted on purpose (`jalign.data.noise`).
      truncated_prompts: prompts that lost tokens at the front.
      truncated_responses: responses that lost tokens at the end.
      longest_prompt, longest_response: tokens of the longest before anything was cut.
      lost_tokens, lost_turns: scored tokens and assistant turns (or steps) that responses lost.
      prompt_tokens, response_tokens, scored_tokens: totals over what was kept.
      sources: names behind the integers of `extras["source"]`, when the rows name their source.
      attributes: names of the places of `extras["attribute_ratings"]`.
      annotators: names behind the integers of `extras["annotator"]`.
      warnings: for the user, one sentence each.
      locations: where each row was read from; `extras["row"]` is its number here.
    """

    kind: str = ""
    explanation: str = ""
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    flipped: int = 0
    truncated_prompts: int = 0
    truncated_responses: int = 0
    longest_prompt: int = 0
    longest_response: int = 0
    lost_tokens: int = 0
    lost_turns: int = 0
    prompt_tokens: int = 0
    response_tokens: int = 0
    scored_tokens: int = 0
    sources: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)
    locations: Places = field(default_factory=lambda: Places(()))

    def drop(self, reason: str, count: int = 1) -> None:
        """Counts rows that were left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count


class Examples(Sequence[Example]):
    """Examples with random access, stored as one token buffer and offsets.

    Segments follow each other in the buffer: for each example its prompt, then its responses.

    Attributes:
      tokens: [N] int32, every segment of every example.
      scored: [N] bool, False on prompts.
      bounds: [segments + 1] int64, where segments start in `tokens`.
      first: [n + 1] int64, the segment that is an example's prompt.
      extras: name -> [n, ...] array, or a list of n arrays when their shapes differ.
      report: what was read, dropped and cut on the way here.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        scored: np.ndarray,
        bounds: np.ndarray,
        first: np.ndarray,
        extras: Mapping[str, np.ndarray | list[np.ndarray]],
        report: Report,
    ):
        self.tokens, self.scored, self.bounds, self.first = tokens, scored, bounds, first
        self.extras, self.report = dict(extras), report

    @classmethod
    def from_list(cls, examples: Iterable[Example], report: Report | None = None) -> Examples:
        """Stores examples compactly.

        Raises:
          ValueError: responses and masks that do not line up, or extras that not every example has.
        """
        # One buffer in the end: an array has 100 bytes of its own, more than a short response.
        tokens, scored, first = [], [], [0]
        extras: dict[str, list[np.ndarray]] = {}
        for i, example in enumerate(examples):
            prompt, responses, masks, more = example
            if [len(r) for r in responses] != [len(m) for m in masks]:
                raise ValueError(f"example {i}: each response needs a mask of its own length")
            if i == 0:
                extras = {name: [] for name in more}
            if set(more) != set(extras):
                raise ValueError(
                    f"example {i} has the extras {sorted(more)}, those before it {sorted(extras)}"
                )
            for name, value in more.items():
                extras[name].append(np.asarray(value))
            tokens += [prompt, *responses]
            scored += [np.zeros(len(prompt), bool), *masks]
            first.append(len(tokens))
        # int64: a data set may have more than 2^31 tokens.
        bounds = np.cumsum([0, *map(len, tokens)], dtype=np.int64)
        return cls(
            np.concatenate(tokens).astype(np.int32) if tokens else np.zeros(0, np.int32),
            np.concatenate(scored).astype(bool) if scored else np.zeros(0, bool),
            bounds,
            np.asarray(first, np.int64),
            {name: _stack(values) for name, values in extras.items()},
            report or Report(read=len(first) - 1, kept=len(first) - 1),
        )

    def __len__(self) -> int:
        return len(self.first) - 1

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        """The example at an index (negative: from the end), or those of a slice."""
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        # A range counts negative indices from the end and raises IndexError, which ends a loop.
        i = range(len(self))[index]
        prompt, responses = self.segments(i)
        return Example(
            prompt,
            tuple(tokens for tokens, _ in responses),
            tuple(scored for _, scored in responses),
            {name: np.asarray(values[i]) for name, values in self.extras.items()},
        )

    def segments(self, i: int) -> tuple[np.ndarray, Responses]:
        """Views of the prompt and the responses of example i >= 0."""
        ends = self.bounds[self.first[i] : self.first[i + 1] + 1].tolist()
        cuts = [slice(a, b) for a, b in pairwise(ends)]
        return self.tokens[cuts[0]], [(self.tokens[c], self.scored[c]) for c in cuts[1:]]

    def __iter__(self) -> Iterator[Example]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Iterable[int]) -> Examples:
        """A selection, in the order given, with the same report."""
        return Examples.from_list((self[i] for i in indices), self.report)

    @cached_property
    def k(self) -> int | None:
        """Responses per example; None when examples differ in it."""
        counts = np.unique(np.diff(self.first) - 1)
        return int(counts[0]) if len(counts) == 1 else None

    @cached_property
    def lengths(self) -> Lengths:
        """Token counts of every prompt and response."""
        segment_len = np.diff(self.bounds).astype(np.int32)
        # Differences of running sums: no Python loop over millions of responses.
        running = np.concatenate([[0], np.cumsum(self.scored)])
        segment_scored = np.diff(running[self.bounds]).astype(np.int32)
        count = np.diff(self.first) - 1
        n, width = len(self), int(count.max(initial=0))
        column = np.arange(width)
        has = column < count[:, None]
        segment = (self.first[:-1, None] + 1 + column)[has]
        response_lens, scored_lens = np.zeros((2, n, width), np.int32)
        response_lens[has], scored_lens[has] = segment_len[segment], segment_scored[segment]
        return Lengths(segment_len[self.first[:-1]], response_lens, scored_lens)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all examples, without the report."""
        digest = hashlib.sha256()
        for array in (self.tokens, self.scored, self.bounds, self.first):
            digest.update(array.tobytes())
        for name in sorted(self.extras):
            digest.update(name.encode())
            values = self.extras[name]
            for array in values if isinstance(values, list) else (values,):
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def _stack(values: list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """One array when all shapes agree, else the list."""
    return np.stack(values) if len({v.shape for v in values}) == 1 else values
