"""One pass of a model over texts that begin alike: the common beginning is stored once.

Rows of one group differ in their ends, such as the questions of a checklist about one response. In
the flat layout (`jalign.layout`) the beginning is the prompt and each rest is a response, so a
group of k questions costs the tokens of the text and of k questions, not of k texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jalign.data.examples import Example, Examples
from jalign.data.lay_out import pack
from jalign.data.packing import Shape
from jalign.layout import Layout
from jalign.rewards.model import _rounded

Ids = tuple[int, ...]
Row = tuple[Ids, list[int]]
"""Token ids, and the next tokens whose log-probs are asked for."""
Scorer = Callable[[Layout], np.ndarray]
"""A layout -> the log-probs of its scored tokens, [B, K, R]."""


def next_logps(groups: Sequence[Sequence[Row]], score: Scorer) -> list[list[list[float]]]:
    """log P (nats) of the next tokens of each row of each group; a group takes one call of the
    model.
    """
    out = []
    for group in groups:
        shared = common_prefix([ids for ids, _ in group])
        # one stream, so one prompt: the group
        logps = score(_layout(group, shared))[0]
        rows = zip(logps, group, strict=False)
        out.append([[float(x) for x in row[: len(nexts)]] for row, (_, nexts) in rows])
    return out


def common_prefix(rows: Sequence[Ids]) -> int:
    """How many tokens all rows begin with.

    >>> common_prefix([(1, 2, 3), (1, 2), (1, 2, 4)]), common_prefix([(1,), (2,)])
    (2, 0)
    """
    shortest = min(map(len, rows))
    return next((i for i in range(shortest) if len({row[i] for row in rows}) > 1), shortest)


def _layout(group: Sequence[Row], shared: int) -> Layout:
    """One stream: the shared beginning, and each rest with its next tokens behind it."""
    responses = [np.array([*ids[shared:], *nexts], np.int32) for ids, nexts in group]
    scored = [
        np.arange(len(r)) >= len(r) - len(nexts)
        for r, (_, nexts) in zip(responses, group, strict=True)
    ]
    # next tokens are stored behind each rest, where causal attention does not read them
    prompt = np.array(group[0][0][:shared], np.int32)
    examples = Examples.from_list([Example(prompt, tuple(responses), tuple(scored), {})])
    width = max(len(nexts) for _, nexts in group)
    longest, total = max(map(len, responses)), sum(map(len, responses))
    # rounded: every new shape compiles the model again
    k = len(group)
    shape = Shape(
        streams=1,
        tokens=_rounded(shared + total + 1, least=64),
        rows=k,
        row_len=_rounded(shared + longest, least=64),
        scored=k * width,
        prompts=1,
        responses=k,
        response_len=width,
    )
    [batch] = pack(examples, [0], shape)
    layout = batch.layout
    for j, (_, nexts) in enumerate(group):
        # all next tokens follow the same token, the last one of the row, not each other
        slots = layout.slots[0, 0, j, : len(nexts)]
        layout.before[0, slots] = layout.before[0, slots[0]]
    return layout
