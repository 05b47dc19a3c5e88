"""Recorded rollouts on disk."""

import numpy as np

from jalign.rollout import record
from jalign.rollout.types import Rollout


def write_rollout(folder, number, texts, scores):
    """One prompt with a response per text."""
    k = len(texts)
    rollout = Rollout.from_lists(
        [np.array([1, 2])],
        [[[5 + i] * (i + 1) for i in range(k)]],
        token_logps=[[[-0.5] * (i + 1) for i in range(k)]],
    )
    arrays = {"scores": np.array([scores])}
    record.write(folder / record.FOLDER, number, 0, ["the prompt"], [texts], rollout, arrays)
