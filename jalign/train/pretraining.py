"""Pretraining text beside the samples of an online step (PPO-ptx)."""

from __future__ import annotations

from typing import Any

import grain
import numpy as np

from jalign.data.examples import Example, Examples


class Pretraining:
    """`count` texts for each step, in an order that depends only on the seed.

    Args:
      texts: one response each, which is the text.
      count: texts per step.
      seed: of their order.
    """

    def __init__(self, texts: Examples, count: int, seed: int):
        self.texts, self.count = texts, count
        self._order: Any = grain.MapDataset.source(range(len(texts))).seed(seed).shuffle().repeat()

    @property
    def prompt_len(self) -> int:
        """Most tokens of a prompt."""
        return int(self.texts.lengths.prompt_len.max())

    def beside(self, samples: Examples, step: int) -> Examples:
        """The samples of a step, and behind them its texts; the extra `pretraining` is 1 for
        texts. Every other extra of a text is 0.
        """
        # Extras are collated over all examples, so a text needs each of them.
        zeros = {n: np.zeros(np.shape(x)[1:], np.float32) for n, x in samples.extras.items()}
        positions = range(step * self.count, (step + 1) * self.count)
        texts = (self.texts[int(self._order[i])] for i in positions)
        marked = [_marked(e, 0.0) for e in samples]
        marked += [_marked(e._replace(extras=zeros), 1.0) for e in texts]
        return Examples.from_list(marked, samples.report)


def _marked(example: Example, pretraining: float) -> Example:
    flag = {"pretraining": np.float32(pretraining)}
    return example._replace(extras=dict(example.extras) | flag)
