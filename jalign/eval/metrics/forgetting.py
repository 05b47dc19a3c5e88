"""What a model lost against its start: held-out likelihood and task scores of the same examples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import in_range, vectors
from jalign.eval.metrics.bootstrap import bootstrap_ratio, paired_bootstrap
from jalign.eval.metrics.estimate import Estimate
from jalign.eval.metrics.proportions import sign_test


class NllChange(NamedTuple):
    """Negative log-likelihood of held-out text, nats per token.

    Attributes:
      before, after: of the start and of the trained model.
      change: after - before; above 0 the model forgot.
    """

    before: float
    after: float
    change: Estimate


class ScoreChange(NamedTuple):
    """Scores on a task.

    Attributes:
      before, after: means.
      change: after - before; below 0 the model forgot.
      gained, lost: examples that scored higher, lower.
      p_value: exact sign test of gained against lost (McNemar's test of right and wrong answers).
    """

    before: float
    after: float
    change: Estimate
    gained: int
    lost: int
    p_value: float


def nll_change(
    before: ArrayLike,
    after: ArrayLike,
    tokens: ArrayLike,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> NllChange:
    """sum(after - before) / sum(tokens), resampled over examples.

    Args:
      before, after: [n] -log p of each example, nats, summed over its tokens, >= 0.
      tokens: [n] scored tokens, >= 0, the same for both models.
      samples, confidence, seed: of the bootstrap.

    Raises:
      ValueError: empty or other shapes, NaN, negative numbers, or no tokens.
    """
    x, y, t = vectors(before=before, after=after, tokens=tokens, low=0)
    options = {"samples": samples, "seed": seed}
    change = bootstrap_ratio(y - x, t, confidence=confidence, **options)
    return NllChange(float(x.sum() / t.sum()), float(y.sum() / t.sum()), change)


def score_change(
    before: ArrayLike,
    after: ArrayLike,
    *,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> ScoreChange:
    """mean(after - before), resampled over examples, with the examples that changed sides.

    Args:
      before, after: [n] scores of each example, e.g. 0 or 1.
      samples, confidence, seed: of the bootstrap.

    Raises:
      ValueError: empty or other shapes, or numbers that are not finite.
    """
    x, y = vectors(before=before, after=after)
    difference = in_range("difference", y - x)
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    options = {"samples": samples, "confidence": confidence, "seed": seed}
    change = paired_bootstrap(y, x, **options).estimate  # type: ignore[arg-type]
    means = float(np.mean(x)), float(np.mean(y))
    return ScoreChange(*means, change, gained, lost, sign_test(gained, lost))
