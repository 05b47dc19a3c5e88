"""Rewards of a rollout as the arrays that a method learns from, and which responses have one.

One rule for all methods: a response that lacks what the method reads is left out, and no other is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jalign.core import Algorithm
from jalign.train.online_metrics import score_metrics
from jalign.train.rollout import Judged, padded


class News(NamedTuple):
    """Whether an attempt at a rollout taught anything, any response of it had a reward, and what
    failed (`rollout.Judged.failures`).
    """

    taught: bool
    rewarded: bool
    failures: Mapping[str, str]


def reward_arrays(
    algorithm: Algorithm, judged: Judged, length: int, own: slice
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, float]]:
    """The arrays of `core.ROLLOUT` that come of rewards; [B, K] whether a response has what the
    method reads; and what is logged.

    Args:
      length: of the arrays of tokens.
      own: the responses of the policy.
    """
    assert algorithm.experience is not None
    read, to = set(algorithm.rollout_inputs()), algorithm.experience.relative.to
    arrays: dict[str, np.ndarray] = {}
    metrics, valid = dict(judged.metrics), np.array(True)
    if judged.scores is not None:
        known = np.isfinite(judged.scores)
        if {"scores", "step_scores"} & read:  # elsewhere they are only looked at
            valid = valid & known
        arrays["scores"] = as_float32(judged.scores, known, to)
        metrics |= score_metrics(judged.scores[:, own], known[:, own])
        metrics["rewards/missing"] = float((~known).sum())
    if judged.step_scores is not None:
        arrays["step_scores"] = padded(centred(judged.step_scores), length, np.nan)
    if "win_probs" in read:
        assert judged.win_probs is not None
        arrays["win_probs"] = judged.win_probs
        others = ~np.eye(judged.win_probs.shape[-1], dtype=bool)
        valid = valid & (np.isfinite(judged.win_probs) & others).any(-1)
    return arrays, valid, metrics


def as_given(judged: Judged, length: int) -> dict[str, np.ndarray]:
    """The rewards themselves, where `reward_arrays` has differences."""
    given = {} if judged.scores is None else {"scores": judged.scores}
    if judged.step_scores is None:
        return given
    return given | {"step_scores": padded(judged.step_scores, length, np.nan)}


def as_float32(scores: np.ndarray, known: np.ndarray, relative_to: str | None) -> np.ndarray:
    """[B, K] scores, 0 where there is none. Where only their differences count the mean is taken
    off first: float32 knows no 100,000,001.
    """
    scores = np.where(known, scores, 0.0)
    if relative_to:
        axis = {"group": 1, "rollout": (0, 1)}[relative_to]
        count = np.maximum(known.sum(axis, keepdims=True), 1)
        scores = np.where(known, scores - scores.sum(axis, keepdims=True) / count, 0.0)
    return scores.astype(np.float32)


def centred(step_scores: Sequence[Sequence[np.ndarray]]) -> list[list[np.ndarray]]:
    """[B][K] rewards of steps without the mean over all steps of the responses to a prompt, since
    only their differences count.
    """
    out = []
    for row in step_scores:
        known = np.concatenate([x[~np.isnan(x)] for x in row])
        out.append([x - (known.mean() if known.size else 0.0) for x in row])
    return out
