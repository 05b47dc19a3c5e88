"""The examples of a step, as a function of the step number alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import grain
import numpy as np

from jalign.data.batch_spec import BatchSpec


class Order:
    """An endless sequence of examples that is a new permutation of the data set in every epoch.

    Steps have no state: a resumed run needs the step number only.

    Args:
      spec: batch_size, seed, shuffle and group_by_length count.
      longest: [n] tokens of the longest row of each example.
    """

    def __init__(self, spec: BatchSpec, longest: np.ndarray):
        self.spec, self.longest = spec, longest
        source = grain.MapDataset.source(range(len(longest)))
        # Any: grain's elements may be None, where they are filtered; these are not
        shuffled: Any = source.seed(spec.seed).shuffle() if spec.shuffle else source
        self._sequence: Any = shuffled.repeat()
        # a step reads one or two windows; sorting one again for each of its examples would cost
        # more than the rest of the step's preparation
        self._window = lru_cache(maxsize=4)(self._sorted_window)

    def __getitem__(self, step: int) -> np.ndarray:
        """[batch_size] numbers of a step's examples, the same on all processes."""
        size = self.spec.batch_size
        if size > len(self.longest):
            raise ValueError(f"batch_size {size} is more than the {len(self.longest)} examples")
        return np.array([self._index(i) for i in range(step * size, (step + 1) * size)], np.int64)

    def _index(self, i: int) -> int:
        """The i-th example of the endless sequence."""
        spec = self.spec
        if not spec.group_by_length:
            return int(self._sequence[i])
        n, b, window_size = (
            len(self.longest),
            spec.batch_size,
            spec.group_by_length * spec.batch_size,
        )
        epoch, at = divmod(i, n)
        # Only whole batches of one epoch are grouped: a batch over the border of two epochs would
        # mix their orders, and an example could be in it twice.
        head = -(epoch * n) % b  # completes the batch that the epoch before began
        grouped = (n - head) // b * b
        if not head <= at < head + grouped:
            return int(self._sequence[i])
        window, offset = divmod(at - head, window_size)
        size = min(window_size, grouped - window * window_size)
        return int(self._window(epoch * n + head + window * window_size, size)[offset])

    def _sorted_window(self, first: int, size: int) -> np.ndarray:
        """`size` examples from `first` on, sorted by length in batches that are shuffled."""
        indices = np.array([self._sequence[i] for i in range(first, first + size)])
        by_length = indices[np.argsort(self.longest[indices], kind="stable")]
        batches = by_length.reshape(-1, self.spec.batch_size)
        return np.random.default_rng((self.spec.seed, first)).permutation(batches).reshape(-1)
