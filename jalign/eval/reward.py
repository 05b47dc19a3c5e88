"""Metrics of rewards: pairwise accuracy, calibration, correlation with length.

Rewards are scores of a reward model, or implicit rewards of a policy (DPO and related losses).
Expected calibration error: Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 2. Subsets:
Lambert et al. 2024 (RewardBench), https://arxiv.org/abs/2403.13787. Best of n: Stiennon et al.
2020, https://arxiv.org/abs/2009.01325 (its KL), and Nakano et al. 2021 (WebGPT),
https://arxiv.org/abs/2112.09332 (the estimator).

Pure functions of numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jalign.eval.metrics.calibration import reliability


class Bucket(NamedTuple):
    """Pairs whose predicted confidence is in [low, high); the last bucket includes its end.

    Attributes:
      low, high: of the confidence, in [0.5, 1].
      pairs: number of pairs.
      confidence: mean confidence; NaN if empty.
      accuracy: share of pairs in the right order, a tie counting half; NaN if empty.
    """

    low: float
    high: float
    pairs: int
    confidence: float
    accuracy: float


class Subset(NamedTuple):
    """Pairs of one source."""

    pairs: int
    accuracy: float


def pairwise_accuracy(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs in which the chosen response has the higher reward; a tie counts half.

    Args:
      chosen, rejected: [n] rewards, n >= 1.

    >>> pairwise_accuracy([2.0, 1.0, 0.5, 0.5], [1.0, 1.5, 0.5, 0.0])
    0.625
    """
    return float(np.mean(_wins(_differences(chosen, rejected))))


def calibration(
    chosen: ArrayLike, rejected: ArrayLike, buckets: int = 10
) -> tuple[list[Bucket], float]:
    """Reliability of predicted preferences, and the expected calibration error (ECE).

    Bradley-Terry predicts P(chosen better) = sigmoid(chosen - rejected). The prediction is folded,
    since the model does not know which side is called chosen: its confidence is max(P, 1 - P), and
    it is right if the side it prefers is the chosen one. ECE is the mean over pairs of
    |accuracy - confidence| of their bucket.

    Args:
      chosen, rejected: [n] rewards, n >= 1.
      buckets: number of buckets of equal width over [0.5, 1].

    Returns:
      The buckets in ascending order, including empty ones, and the error in [0, 1].

    Raises:
      ValueError: `buckets` < 1, or rewards of different shapes.
    """
    difference = _differences(chosen, rejected)
    # of the absolute value: it cannot overflow
    confidence, wins = 1 / (1 + np.exp(-np.abs(difference))), _wins(difference)
    if buckets < 1:
        raise ValueError(f"buckets must be at least 1, got {buckets}")
    result = reliability(confidence, wins, bins=buckets, low=0.5)
    columns = result.edges[:-1], result.edges[1:], result.counts, result.probability, result.outcome
    rows = zip(*(column.tolist() for column in columns), strict=True)
    # the one NaN of math: reports of the same rewards are then equal
    known = ([math.nan if math.isnan(x) else x for x in row] for row in rows)
    return [Bucket(*row) for row in known], result.ece


def length_correlation(rewards: ArrayLike, lengths: ArrayLike) -> tuple[float, float]:
    """Pearson's and Spearman's correlation of rewards with lengths; NaN if either is constant.

    A high correlation means that longer responses get higher rewards.

    Args:
      rewards: [n], n >= 1.
      lengths: [n] tokens (or characters).
    """
    x, y = _pair(rewards, lengths, ("rewards", "lengths"))
    if np.ptp(x) == 0 or np.ptp(y) == 0:  # scipy would warn; the rest of the report is valid
        return math.nan, math.nan
    results = stats.pearsonr(x, y), stats.spearmanr(x, y)
    pearson, spearman = (float(result.statistic) for result in results)  # pyright: ignore
    return pearson, spearman


def by_source(
    chosen: ArrayLike, rejected: ArrayLike, source: ArrayLike, names: Sequence[str]
) -> dict[str, Subset]:
    """Number of pairs and accuracy by source (as RewardBench reports its subsets).

    Args:
      chosen, rejected: [n] rewards.
      source: [n] indices into `names`.
      names: names of the sources; those without pairs are omitted.
    """
    wins = _wins(_differences(chosen, rejected))
    source = np.asarray(source)
    if source.shape != wins.shape or (source.size and not 0 <= source.min() <= source.max()):
        raise ValueError(f"source must be {wins.shape} indices >= 0, got {source.shape} {source}")
    if source.max() >= len(names):
        raise ValueError(f"source {source.max()} has no name; names are: {', '.join(names)}")
    groups = {name: wins[source == i] for i, name in enumerate(names)}
    return {n: Subset(len(g), float(g.mean())) for n, g in groups.items() if len(g)}


def reward_report(outputs: dict[str, np.ndarray], sources: Sequence[str] = ()) -> dict[str, object]:
    """All metrics of held-out pairs, as numbers, lists and dictionaries.

    Args:
      outputs: result of `jalign.eval.examples.per_example` for pairs.
      sources: names of the indices in `outputs["source"]`.
    """
    chosen, rejected = outputs["chosen_rewards"], outputs["rejected_rewards"]
    buckets, error = calibration(chosen, rejected)
    pearson, spearman = length_correlation(
        np.concatenate([chosen, rejected]),
        np.concatenate([outputs["chosen_len"], outputs["rejected_len"]]),
    )
    report: dict[str, Any] = {
        "pairwise_accuracy": pairwise_accuracy(chosen, rejected),
        "calibration_error": error,
        "calibration": [bucket._asdict() for bucket in buckets],
        "length_correlation": {"pearson": pearson, "spearman": spearman},
    }
    if sources and "source" in outputs:
        subsets = by_source(chosen, rejected, outputs["source"], sources)
        report["accuracy_by_source"] = {name: s._asdict() for name, s in subsets.items()}
    return report


def _pair(a: ArrayLike, b: ArrayLike, names: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise ValueError(f"{names[0]} and {names[1]} must be [n], n >= 1, got {x.shape}, {y.shape}")
    for name, values in zip(names, (x, y), strict=True):
        # -inf is a reward model's answer to an empty response; one would decide the correlations
        if not np.isfinite(values).all():
            raise ValueError(f"{name} hold {int((~np.isfinite(values)).sum())} numbers not finite")
    return x, y


def _differences(chosen: ArrayLike, rejected: ArrayLike) -> np.ndarray:
    chosen, rejected = _pair(chosen, rejected, ("chosen", "rejected"))
    return chosen - rejected


def _wins(difference: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.sign(difference))
