"""Batches as arrays: built by `jalign.data`, read by `models/score.py` and the formats.

A batch is K responses to each of B prompts. Its tokens lie in S independent streams (one or more
per data-parallel device), each N tokens long. The three records here are NamedTuples, hence
pytrees: numpy arrays on the host and jax arrays on the devices, in the same places.

Two shapes of the same record:

* flat (`rows` is an array): a stream holds many examples, and a prompt shared by its K responses is
  stored once, before all responses. Linear layers run on the stream; attention runs on M
  right-padded rows of T tokens (prompt + one response) gathered from it by `rows`; `inverse` is the
  inverse gather, so that both directions have gather-only gradients.
* padded (`rows is None`): every stream IS one right-padded row (S = B*K, N = T).

Shape letters: B prompts, K responses per prompt, R scored tokens per response, S streams, N tokens
per stream, M rows per stream, T tokens per row, Q scored tokens per stream, P prompts per stream
(B = S*P for flat), C leading tokens of a stream that may be in several rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any  # numpy on the host, jax on the device; this module imports neither


class Inverse(NamedTuple):
    """Where the tokens of a stream are in its flattened rows [M*T]; unused entries hold M*T.

    Attributes:
      first: [S, N] int32 the first copy of each token.
      more: [S, C, K - 1] int32 the further copies of the first C tokens, among which the prompts
        are; C = 0 for K = 1.
    """

    first: Array
    more: Array


class Layout(NamedTuple):
    """Token positions of one micro-batch; every index is local to its stream.

    Attributes:
      tokens: [S, N] int32 token ids; unused entries hold 0.
      positions: [S, N] int32 position of each token in its row (prompt tokens 0..p-1, each response
        p..).
      before: [S, Q] int32 index in the stream of the token whose hidden state predicts the scored
        token.
      at: [S, Q] int32 index in the stream of the scored token itself; unused entries of `before`
        and `at` are 0.
      slots: [S, P, K, R] int32 entry of Q that holds the r-th scored token of a response; unused 0
        (and False in the batch's mask). Reshaped to [B, K, R] it lines up with `Batch.mask`.
      rows: [S, M, T] int32 index in the stream of each row's tokens, or None (padded). Unused
        entries hold N - 1, which is never a real token.
      inverse: the rows' entries of each token of the stream, or None (padded).
    """

    tokens: Array
    positions: Array
    before: Array
    at: Array
    slots: Array
    rows: Array | None = None
    inverse: Inverse | None = None


class Batch(NamedTuple):
    """K scored responses to each of B prompts. Empty slots have an all-False mask.

    Attributes:
      layout: where the tokens are.
      mask: [B, K, R] bool, True on scored response tokens, which come first in a response.
      extras: arrays that come with the data, [B, ...]: margin, label, rewards, cached `ref_*`,
        `index`, the number of the example in its data set (-1: empty slot), and `weight` >= 0, how
        often an example counts in every mean of the objective.
    """

    layout: Layout
    mask: Array
    extras: dict[str, Array] = {}  # noqa: RUF012  # never written to

    @property
    def present(self) -> Array:
        """[B] bool, which slots hold an example."""
        return self.mask.any(axis=(-1, -2))


class MicroBatches(NamedTuple):
    """Micro-batches of one shape, stacked.

    Attributes:
      batch: every leaf has a leading axis of the micro-batches.
      count: int32, how many of them are filled; they come first. A step skips the others.
    """

    batch: Batch
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]  # not tuple.count

    def micro_batch(self, i: Any) -> Batch:
        """The i-th, without the leading axis (numpy: views)."""
        layout, mask, extras = self.batch
        arrays = (None if x is None else x[i] for x in layout[:-1])
        inverse = None if layout.inverse is None else Inverse(*(x[i] for x in layout.inverse))
        return Batch(Layout(*arrays, inverse), mask[i], {name: x[i] for name, x in extras.items()})
