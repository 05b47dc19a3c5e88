"""Pairwise preference probabilities, from any source.

Functions here take and return `PreferenceFn`s, so that methods that learn from preferences do not
depend on their source: a reward model, a judge or a rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

PreferenceFn = Callable[[Sequence[str], Sequence[str], Sequence[str]], "list[float | None]"]
"""`(prompts, first, second) -> P(first is preferred)` for each, in [0, 1]; None: unknown."""


class Labels(NamedTuple):
    """Preferences of n pairs, asked in both orders.

    Attributes:
      probs: P(first is preferred), the mean of both orders; None where an order has no answer.
      position_bias: share of the pairs with both answers in which the same slot won in both
        orders, whichever response it held; NaN without such a pair.
      failed: pairs without a label.
    """

    probs: list[float | None]
    position_bias: float
    failed: int


class BothOrders:
    """A preference that does not depend on the order: (P(a over b) + 1 - P(b over a)) / 2.

    As in Lee et al. 2023, https://arxiv.org/abs/2309.00267, and before them Wang et al. 2023,
    https://arxiv.org/abs/2305.17926. It is a `PreferenceFn` itself.

    Args:
      prefer: asked twice about each pair, in one call.
    """

    def __init__(self, prefer: PreferenceFn):
        self.prefer = prefer
        self._pairs = self._same_slot = self._failed = 0

    def __call__(
        self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]
    ) -> list[float | None]:
        return self.label(prompts, first, second).probs

    def label(self, prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> Labels:
        """Labels of n pairs, with the position bias.

        Raises:
          ValueError: lengths that differ.
        """
        prompts, first, second = list(prompts), list(first), list(second)
        n = _same_length(prompts, first, second)
        # One call: a server answers both orders at the same time.
        both = self.prefer(prompts * 2, first + second, second + first)
        probs: list[float | None] = []
        same = 0
        for a, b in zip(both[:n], both[n:], strict=True):
            if a is None or b is None:
                probs.append(None)
                continue
            probs.append((a + 1 - b) / 2)
            # Both answers on one side of 1/2: the same slot won in both orders.
            same += (a - 0.5) * (b - 0.5) > 0
        failed = probs.count(None)
        self._pairs, self._failed = self._pairs + n, self._failed + failed
        self._same_slot += same
        return Labels(probs, same / (n - failed) if n > failed else math.nan, failed)

    @property
    def biased(self) -> bool:
        """Whether the position decides: the same slot won in both orders in more than 3 of 4 pairs
        with both answers, of which there are at least 4.
        """
        known = self._pairs - self._failed
        return known >= 4 and self._same_slot > 0.75 * known

    def metrics(self) -> dict[str, float]:
        """`judge/position_bias` and `judge/failed` (a share), over all labels so far."""
        known = self._pairs - self._failed
        return {
            "judge/position_bias": self._same_slot / known if known else math.nan,
            "judge/failed": self._failed / self._pairs if self._pairs else math.nan,
        }


def preference_matrix(
    prefer: PreferenceFn, prompts: Sequence[str], responses: Sequence[Sequence[str]]
) -> np.ndarray:
    """[B, K, K] float32: P[b, i, j] that response i of prompt b is preferred to response j.

    P[b, i, i] = 0.5 and P[b, j, i] = 1 - P[b, i, j]: only i < j is queried, all in one call, and
    equal texts are 0.5 without a query. NaN without an answer.

    Args:
      prompts: [B].
      responses: [B][K].

    Raises:
      ValueError: not as many lists as prompts, or lists of different lengths.
    """
    sizes = {len(row) for row in responses}
    if len(responses) != len(prompts) or len(sizes) > 1:
        raise ValueError(
            f"responses must be [{len(prompts)}][K], got {len(responses)} lists of the lengths "
            f"{sorted(sizes)}"
        )
    k = sizes.pop() if sizes else 0
    out = np.full((len(prompts), k, k), 0.5, np.float32)
    pairs = [
        (b, i, j)
        for b, row in enumerate(responses)
        for i in range(k)
        for j in range(i + 1, k)
        if row[i] != row[j]
    ]
    if not pairs:
        return out
    probs = prefer(
        [prompts[b] for b, _, _ in pairs],
        [responses[b][i] for b, i, _ in pairs],
        [responses[b][j] for b, _, j in pairs],
    )
    for (b, i, j), p in zip(pairs, probs, strict=True):
        out[b, i, j] = math.nan if p is None else p
        out[b, j, i] = 1 - out[b, i, j]
    return out


def _same_length(prompts: Sequence[str], first: Sequence[str], second: Sequence[str]) -> int:
    if not len(prompts) == len(first) == len(second):
        raise ValueError(
            f"{len(prompts)} prompts, {len(first)} first and {len(second)} second responses"
        )
    return len(prompts)
