"""One pass of a model over texts that begin alike: the common beginning is stored once.

Rows of one group differ in their ends, such as the questions of a checklist about one response. In
the flat layout (`jalign.layout`) the beginning is the prompt and each rest is a response, so a
group of k questions costs the tokens of the text and of k questions, not of k texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from jalign.data.examples import Example, Examples
from jalign.data.lay_out import pack
from jalign.data.packing import Shape
from jalign.layout import Batch, Layout
from jalign.parallel.axes import BATCH_AXES
from jalign.parallel.rules import ways
from jalign.rewards.model import _rounded

Ids = tuple[int, ...]
Row = tuple[Ids, list[int]]
"""Token ids, and the next tokens whose log-probs are asked for."""
Scorer = Callable[[Layout], np.ndarray]
"""A layout -> the log-probs of its scored tokens, [B, K, R]."""


def next_logps(
    groups: Sequence[Sequence[Row]], score: Scorer, *, rows: int = 32
) -> list[list[list[float]]]:
    """log P (nats) of the next tokens of each row of each group.

    Args:
      groups: their rows; groups of similar length share a call of the model.
      score: the model.
      rows: most rows of a call, but at least one group for each shard of a batch.
    """
    shards = ways(*BATCH_AXES)
    most = max(rows // max(map(len, groups), default=1) // shards, 1) * shards
    examples = [_example(group) for group in groups]
    order = sorted(range(len(groups)), key=lambda i: _sizes(examples[i]))
    out: list[list[list[float]]] = [[] for _ in groups]
    for start in range(0, len(order), most):
        indices = order[start : start + most]
        # rounded: every new shape compiles the model again
        streams = min(_rounded(math.ceil(len(indices) / shards), least=1) * shards, most)
        batch = _batch([examples[i] for i in indices], streams)
        for logps, i in zip(score(batch.layout), batch.extras["index"], strict=True):
            if i >= 0:  # else no group is left for this stream
                group = groups[indices[i]]
                pairs = zip(logps, group, strict=False)
                out[indices[i]] = [[float(x) for x in r[: len(nexts)]] for r, (_, nexts) in pairs]
    return out


def common_prefix(rows: Sequence[Ids]) -> int:
    """How many tokens all rows begin with.

    >>> common_prefix([(1, 2, 3), (1, 2), (1, 2, 4)]), common_prefix([(1,), (2,)])
    (2, 0)
    """
    shortest = min(map(len, rows))
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)


def _sizes(example: Example) -> tuple[int, int]:
    """Tokens that are stored of a group, and of its longest row."""
    shared, ends = len(example.prompt), [len(r) for r in example.responses]
    return shared + sum(ends), shared + max(ends)


def _batch(groups: Sequence[Example], streams: int) -> Batch:
    """A group in a stream: the shared beginning, and each rest with its next tokens behind it."""
    k = max(len(group.responses) for group in groups)
    width = max(_next_tokens(scored) for group in groups for scored in group.scored)
    stored, longest = np.max([_sizes(group) for group in groups], axis=0)
    shape = Shape(
        streams=streams,
        tokens=_rounded(stored + 1, least=64),
        rows=k,
        row_len=_rounded(longest, least=64),
        scored=k * width,
        prompts=1,
        responses=k,
        response_len=width,
    )
    [batch] = pack(Examples.from_list(groups), range(len(groups)), shape)
    layout = batch.layout
    for stream, i in enumerate(batch.extras["index"]):
        for j, scored in enumerate(groups[i].scored if i >= 0 else ()):
            # all next tokens follow the same token, the last one of the row, not each other
            slots = layout.slots[stream, 0, j, : _next_tokens(scored)]
            layout.before[stream, slots] = layout.before[stream, slots[0]]
    return batch


def _next_tokens(scored: np.ndarray) -> int:
    return int(scored.sum())


def _example(group: Sequence[Row]) -> Example:
    shared = common_prefix([ids for ids, _ in group])
    responses = tuple(np.array([*ids[shared:], *nexts], np.int32) for ids, nexts in group)
    # next tokens are stored behind each rest, where causal attention does not read them
    ends = zip(responses, group, strict=True)
    scored = tuple(np.arange(len(r)) >= len(r) - len(nexts) for r, (_, nexts) in ends)
    return Example(np.array(group[0][0][:shared], np.int32), responses, scored, {})
