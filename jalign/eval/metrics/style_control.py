"""Win rates against a baseline at equal style (Arena-Hard's style control)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from jalign.eval.metrics import _logistic
from jalign.eval.metrics._arrays import in_range, indices, vectors
from jalign.eval.metrics.bootstrap import resample
from jalign.eval.metrics.estimate import percentiles


class StyleControlled(NamedTuple):
    """Win rates at equal style.

    Attributes:
      win_rate, low, high: [M] against the baseline, in [0, 1], and the ends of their intervals.
      strength: [M] log-odds against the baseline.
      coefficients: [F] log-odds per standard deviation of each feature of style.
      resamples: those that had finite coefficients and make up the intervals.
    """

    win_rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    strength: np.ndarray
    coefficients: np.ndarray
    resamples: int


def style_controlled(
    model: ArrayLike,
    score: ArrayLike,
    features: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    prompt: ArrayLike | None = None,
    prior: float = 0.0,
    samples: int = 100,
    confidence: float = 0.9,
    seed: int = 0,
) -> StyleControlled:
    """Logistic regression score ~ sigmoid(strength of the model + features . coefficients) over
    games against one baseline; the win rate is sigmoid(strength).

    Args:
      model: [m] index of the model of each game, 0 .. M-1; the baseline has none.
      score: [m] of the model, in [0, 1].
      features: [m, F] of `style_features`.
      weight: [m] how often a game counts, >= 0; None: once.
      prompt: [m] index of the prompt, over which the bootstrap resamples; None: over games.
      prior: precision of a Gaussian prior on all coefficients, >= 0.
      samples, confidence, seed: of the bootstrap.

    Raises:
      ValueError: empty or other shapes, NaN, numbers out of range, a model without games, or
        games without a finite fit: a model that always wins, or features that tell each outcome.
    """
    who = indices("model", model)
    s, w = vectors(score=score, weight=np.ones(len(who)) if weight is None else weight, low=0)
    in_range("score", s, 0, 1)
    x = in_range("features", np.asarray(features, np.float64))
    if s.shape != who.shape or x.ndim != 2 or len(x) != len(who):
        raise ValueError(
            f"model, score and features must be [m], [m] and [m, F], got {who.shape}, {s.shape} "
            f"and {x.shape}"
        )
    if prior < 0:
        raise ValueError(f"prior must be >= 0, got {prior}")
    models = int(who.max()) + 1
    games = np.bincount(who, weights=w, minlength=models)
    if not games.all():
        raise ValueError(f"model {int(np.argmin(games))} has no games")
    # no column for the baseline: its strength is 0, which fixes the scale
    design = np.concatenate([np.eye(models)[who], x], -1)
    result = _logistic.fit(design, s, w[None], ridge=prior)
    if not result.converged[0]:
        raise ValueError(
            "the fit is not finite: a model always wins or loses, or features tell each outcome; "
            "give prior > 0"
        )
    group = np.arange(len(who)) if prompt is None else indices("prompt", prompt)
    _, group = np.unique(group, return_inverse=True)
    if group.shape != who.shape:
        raise ValueError(f"prompt must be {who.shape}, got {group.shape}")
    rates = []
    for counts in resample(int(group.max()) + 1, samples, seed):
        fits = _logistic.fit(design, s, counts[:, group] * w, ridge=prior)
        # a model that happens to win all of a resample has no finite strength in it
        rates.append(special.expit(fits.coefficients[fits.converged, :models]))
    draws, strength = np.concatenate(rates), result.coefficients[0, :models]
    if not len(draws):
        raise ValueError("no resample has a finite fit; give prior > 0")
    low, high = percentiles(draws, confidence)
    rest = result.coefficients[0, models:]
    return StyleControlled(special.expit(strength), low, high, strength, rest, len(draws))
