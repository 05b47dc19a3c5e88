"""Arena-Hard's score: verdicts of two games with swapped order, weighted by their strength.

Li et al. 2024, "From Crowdsourced Data to High-Quality Benchmarks: Arena-Hard and BenchBuilder
Pipeline", https://arxiv.org/abs/2406.11939, version 2 of the benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import in_range, indices, vectors
from jalign.eval.metrics.bootstrap import bootstrap_ratio
from jalign.eval.metrics.estimate import Estimate

_OF_A = {
    "A>>B": (1.0, True),
    "A>B": (1.0, False),
    "A=B": (0.5, False),
    "B=A": (0.5, False),
    "B>A": (0.0, False),
    "B>>A": (0.0, True),
}
_OF_A |= {"A<B": _OF_A["B>A"], "A<<B": _OF_A["B>>A"], "B<A": _OF_A["A>B"], "B<<A": _OF_A["A>>B"]}
VERDICTS = tuple(_OF_A)


class Battles(NamedTuple):
    """Games of a model, two per prompt.

    Attributes:
      score: [2n] of the model: 1, 1/2 or 0.
      weight: [2n] how often the game counts.
      prompt: [2n] index of the prompt.
    """

    score: np.ndarray
    weight: np.ndarray
    prompt: np.ndarray


def verdict_scores(
    as_a: Sequence[str], as_b: Sequence[str], *, strong_weight: float = 3.0
) -> Battles:
    """Scores of verdicts such as "A>>B", "A>B", "A=B": those where the model was assistant A, and
    those where it was assistant B.

    Args:
      as_a, as_b: [n] verdicts on the same prompts, each of `VERDICTS`.
      strong_weight: weight of >> and <<, >= 1.

    Raises:
      ValueError: not as many, none, or a verdict that is none of them (leave such a prompt out).

    >>> verdict_scores(["A>>B"], ["A>B"])._asdict()["weight"].tolist()
    [3.0, 1.0]
    """
    if len(as_a) != len(as_b) or not as_a:
        raise ValueError(f"as_a and as_b must be [n], n >= 1, got {len(as_a)} and {len(as_b)}")
    if not strong_weight >= 1:
        raise ValueError(f"strong_weight must be >= 1, got {strong_weight}")
    for name, side in (("as_a", as_a), ("as_b", as_b)):
        unknown = [i for i, verdict in enumerate(side) if verdict not in _OF_A]
        if unknown:
            raise ValueError(
                f"{name}[{unknown[0]}] is {side[unknown[0]]!r}; verdicts are {', '.join(VERDICTS)}"
            )
    games = [_OF_A[v] for v in as_a] + [(1 - s, strong) for s, strong in map(_OF_A.get, as_b)]  # type: ignore[misc]
    score, strong = (np.array(column) for column in zip(*games, strict=True))
    prompt = np.tile(np.arange(len(as_a)), 2)
    return Battles(score, np.where(strong, strong_weight, 1.0), prompt)


def arena_hard(
    score: ArrayLike,
    weight: ArrayLike,
    prompt: ArrayLike,
    *,
    samples: int = 1000,
    confidence: float = 0.9,
    seed: int = 0,
) -> Estimate:
    """sum(weight * score) / sum(weight) against the baseline, in [0, 1].

    Args:
      score, weight, prompt: [m], as `verdict_scores` returns them.
      samples, confidence, seed: of the bootstrap over prompts.

    Raises:
      ValueError: empty or other shapes, NaN, or numbers out of range.

    Deviations: Arena-Hard resamples games, 100 times, and reports the mean of the resamples; the
      two games of a prompt are not independent, so this resamples prompts, and reports the score.
    """
    s, w = vectors(score=score, weight=weight, low=0)
    in_range("score", s, 0, 1)
    index = indices("prompt", prompt)
    if index.shape != s.shape:
        raise ValueError(f"prompt must be {s.shape}, got {index.shape}")
    # sums by prompt first: its two games are resampled together
    _, group = np.unique(index, return_inverse=True)
    sums = [np.bincount(group, weights=values) for values in (w * s, w)]
    return bootstrap_ratio(*sums, samples=samples, confidence=confidence, seed=seed)
