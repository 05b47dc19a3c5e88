"""Bootstrap over prompts (and seeds) by counts.

Efron 1979. A resample of n prompts is the multinomial count of each of them, so that all resamples
are one matrix product. Values [seeds, n] are resampled along both axes, independently: the interval
holds for other seeds and other prompts. Of n seeds it sees (n - 1) / n of their variance: with
three it is somewhat narrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import in_range, vectors
from jalign.eval.metrics.estimate import Estimate, percentiles

# counts that are in memory at once: 1,000 resamples of 100,000 prompts would take 800 MB
_CELLS = 1 << 22


class Difference(NamedTuple):
    """How much larger one mean is than another.

    Attributes:
      estimate: of mean(a) - mean(b).
      p_value: two-sided, of the resampled differences beyond 0.
    """

    estimate: Estimate
    p_value: float


def bootstrap(
    values: ArrayLike, *, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """The mean, with the percentile interval of its resamples.

    Args:
      values: [n], one per prompt, or [seeds, n].
      samples: resamples, >= 1.
      confidence: in (0, 1).
      seed: of the counts.

    Raises:
      ValueError: another shape, values that are not finite, or a number out of its range.
    """
    x = _table("values", values)
    low, high = percentiles(_means(x, samples, seed), confidence)
    return Estimate(float(x.mean()), float(low), float(high))


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """mean(a) - mean(b) over the same prompts (and seeds), which are resampled together.

    p = 2 min(P(d* <= 0), P(d* >= 0)), each (1 + count) / (1 + samples), at most 1: it is below
    1 - confidence about when the interval leaves out 0. It is at least 2 / (1 + samples): before a
    correction for m comparisons, take many more than 2 m / alpha resamples.

    Args:
      a, b: [n] or [seeds, n], of one shape; entry i of both belongs to prompt i.

    Raises:
      ValueError: as `bootstrap`, or different shapes.
    """
    x, y = _table("a", a), _table("b", b)
    if x.shape != y.shape:
        raise ValueError(f"a and b must have one shape, got {np.shape(a)} and {np.shape(b)}")
    # of the differences: what both sides share, such as hard prompts, cancels
    draws = _means(x - y, samples, seed)
    low, high = percentiles(draws, confidence)
    # one is added so that no finite number of resamples gives p = 0
    tail = (1 + min((draws <= 0).sum(), (draws >= 0).sum())) / (1 + samples)
    return Difference(Estimate(float((x - y).mean()), float(low), float(high)), min(1.0, 2 * tail))


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """sum(numerator) / sum(denominator), e.g. nats per token, resampled over prompts.

    Args:
      numerator: [n].
      denominator: [n], >= 0, their sum > 0.

    Raises:
      ValueError: as `bootstrap`, or no positive denominator.
    """
    x, y = vectors(numerator=numerator, denominator=denominator)
    in_range("denominator", y, low=0)
    if not y.any():
        raise ValueError("denominator is 0 everywhere")
    sums = [(c @ x, c @ y) for c in resample(len(x), samples, seed)]
    top, bottom = (np.concatenate(part) for part in zip(*sums, strict=True))
    # a resample may hold only prompts without a denominator
    low, high = percentiles(top[bottom > 0] / bottom[bottom > 0], confidence)
    return Estimate(float(x.sum() / y.sum()), float(low), float(high))


def resample(size: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Counts [S, size] of `samples` resamples, some of them at a time; each row sums to `size`."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    rng, step = np.random.default_rng(seed), max(1, _CELLS // size)
    for start in range(0, samples, step):
        shape = min(step, samples - start)
        yield rng.multinomial(size, np.full(size, 1 / size), shape).astype(np.float64)


def _means(x: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """[samples] means of the resampled [seeds, n]."""
    rows, size = x.shape
    draws = [c @ x.T / size for c in resample(size, samples, seed)]
    by_seed = np.concatenate(draws)
    if rows == 1:
        return by_seed[:, 0]
    # another stream than that of the prompts
    picks = np.concatenate(list(resample(rows, samples, seed + 1)))
    return (picks * by_seed).sum(-1) / rows


def _table(name: str, values: ArrayLike) -> np.ndarray:
    x = np.asarray(values, np.float64)
    if x.ndim not in (1, 2) or not x.size:
        raise ValueError(f"{name} must be [n] or [seeds, n], not empty, got {x.shape}")
    return in_range(name, np.atleast_2d(x))
