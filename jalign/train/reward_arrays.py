"""Convert the rewards of a rollout to arrays, and mark the responses that have one.

All methods share one rule: only responses that lack what the method reads are excluded.
"""

from __future__ import annotations

import numpy as np

from jalign.core import Algorithm
from jalign.rewards.types import Judged
from jalign.train.online_metrics import score_metrics


def reward_arrays(
    algorithm: Algorithm, judged: Judged, length: int, by_policy: slice
) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, float]]:
    """The arrays of `core.ROLLOUT` that depend on rewards; [B, K] whether a response has what the
    method reads; and metrics.

    Args:
      length: R of the arrays.
      by_policy: the responses that the policy wrote.
    """
    assert algorithm.experience is not None
    read, to = set(algorithm.rollout_inputs()), algorithm.experience.relative.to
    arrays: dict[str, np.ndarray] = {}
    metrics, valid = dict(judged.metrics), np.array(True)
    if judged.scores is not None:
        known = np.isfinite(judged.scores)
        if {"scores", "step_scores", "reward_parts"} & read:  # otherwise they are only logged
            valid = valid & known
        arrays["scores"] = as_float32(judged.scores, known, to)
        metrics |= score_metrics(judged.scores[:, by_policy], known[:, by_policy])
        metrics["rewards/missing"] = float((~known).sum())
    if "reward_parts" in read:
        arrays |= _parts(judged, to)
    if judged.step_scores is not None:
        arrays["step_scores"] = padded_rewards(centered(judged.step_scores), length)
    if "win_probs" in read:
        assert judged.win_probs is not None
        arrays["win_probs"] = judged.win_probs
        # A response against itself is not a comparison.
        others = ~np.eye(judged.win_probs.shape[-1], dtype=bool)
        valid = valid & (np.isfinite(judged.win_probs) & others).any(-1)
    return arrays, valid, metrics


def _parts(judged: Judged, relative_to: str | None) -> dict[str, np.ndarray]:
    """Each reward by itself, NaN where it is missing, and the weights."""
    if judged.parts is None or judged.part_weights is None:
        raise ValueError("the reward returns a total; the method reads each of its parts")
    known = np.isfinite(judged.parts)
    # 0 would be a reward: a part that does not apply stays NaN
    parts = as_float32(judged.parts, known, relative_to)
    weights = np.asarray(judged.part_weights, np.float32)
    return {"reward_parts": np.where(known, parts, np.nan), "reward_weights": weights}


def given_rewards(judged: Judged, length: int) -> dict[str, np.ndarray]:
    """The raw rewards, which `reward_arrays` centers."""
    arrays = {} if judged.scores is None else {"scores": judged.scores}
    if judged.step_scores is None:
        return arrays
    return arrays | {"step_scores": padded_rewards(judged.step_scores, length)}


def padded_rewards(step_scores: np.ndarray, length: int) -> np.ndarray:
    """[B, K, length] float32, NaN behind the responses."""
    more = length - step_scores.shape[-1]
    return np.pad(step_scores, ((0, 0), (0, 0), (0, more)), constant_values=np.nan).astype(
        np.float32
    )


def as_float32(scores: np.ndarray, known: np.ndarray, relative_to: str | None) -> np.ndarray:
    """[B, K, ...] scores, 0 where missing. If only differences matter the mean is subtracted first:
    float32 cannot represent 100,000,001, and the losses compute in float32.
    """
    scores = np.where(known, scores, 0.0)
    if relative_to:
        axis = {"group": 1, "rollout": (0, 1)}[relative_to]
        count = np.maximum(known.sum(axis, keepdims=True), 1)
        scores = np.where(known, scores - scores.sum(axis, keepdims=True) / count, 0.0)
    return scores.astype(np.float32)


def centered(step_scores: np.ndarray) -> np.ndarray:
    """[B, K, R] rewards of steps minus the mean over all steps of the responses to a prompt: only
    their differences count.
    """
    out = step_scores.copy()
    for row in out:
        known = row[~np.isnan(row)]
        row -= known.mean() if known.size else 0.0
    return out
