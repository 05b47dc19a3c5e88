"""Win rate at equal length: the regression of AlpacaEval 2.

Dubois et al. 2024, "Length-Controlled AlpacaEval", https://arxiv.org/abs/2404.04475. A logistic
regression explains a judge's preference by the difference in length, the difficulty of the
instruction and the model; the length-controlled win rate is its prediction at equal length. The
minimal form (`length_controlled_minimal` of their repository) has no difficulty and no gamed
baselines, so it can be used on prompts of one's own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from jalign.eval.metrics import _logistic
from jalign.eval.metrics._arrays import vector, vectors
from jalign.eval.metrics.bootstrap import resample
from jalign.eval.metrics.estimate import Estimate, percentiles

FOLDS = 5
GRID = np.logspace(-4, 4, 10)
"""Values of C among which cross-validation picks; the penalty is |w|_1 / C."""


class LengthWeights(NamedTuple):
    """Coefficients, in log-odds.

    Attributes:
      length: of tanh((baseline_len - model_len) / std); negative where longer answers win.
      difficulty: of the difficulty of the instruction; 0 in the minimal form.
      model: of the model against the baseline.
    """

    length: float
    difficulty: float
    model: float


class LengthControlled(NamedTuple):
    """A win rate at equal length.

    Attributes:
      win_rate: mean prediction in [0, 1]; the interval resamples prompts and fits again.
      standard_error: of the mean of the predictions alone, as AlpacaEval reports it; 0 in the
        minimal form, whose prediction is the same on all prompts.
      raw: mean preference without the control.
      weights: coefficients.
      c: inverse strength of the L1 penalty.
    """

    win_rate: Estimate
    standard_error: float
    raw: float
    weights: LengthWeights
    c: float


class Gamed(NamedTuple):
    """The baseline's own answers made longer and shorter, judged against the baseline: AlpacaEval's
    regularization towards a length effect that no model gains from.

    Attributes:
      preference: [g] in [0, 1].
      length: [g] standardized length differences, before tanh.
      difficulty: [g].
    """

    preference: ArrayLike
    length: ArrayLike
    difficulty: ArrayLike


def length_controlled(
    preference: ArrayLike,
    model_len: ArrayLike,
    baseline_len: ArrayLike,
    *,
    c: float | None = None,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> LengthControlled:
    """The minimal form: sigmoid(w) of preference ~ sigmoid(v tanh(d) + w), d the length difference
    (baseline - model) over its standard deviation.

    Args:
      preference: [n] of the model over the baseline, in [0, 1]; 1/2 is a tie.
      model_len, baseline_len: [n] lengths, >= 0; AlpacaEval counts characters.
      c: inverse strength of the L1 penalty, > 0; None: of `GRID`, by 5-fold cross-validation.
      samples, confidence, seed: of the bootstrap over prompts, at that c.

    Raises:
      ValueError: empty or other shapes, NaN, numbers out of range, fewer than 5 prompts without
        `c`, or length differences that are all equal.

    Deviations: prompt i is in fold i mod 5; AlpacaEval's folds follow scikit-learn's order of equal
      groups, which is not specified. It stops at liblinear's tolerance (1e-4), this at 1e-10.
    """
    rows = _rows(preference, model_len, baseline_len, None)
    none = _Rows(rows.y[:0], rows.x[:0], rows.weight[:0])
    return _controlled(rows, none, c, samples, confidence, seed)


def length_controlled_full(
    preference: ArrayLike,
    model_len: ArrayLike,
    baseline_len: ArrayLike,
    difficulty: ArrayLike,
    gamed: Gamed | None = None,
    *,
    gamed_weight: float = 0.2,
    c: float | None = None,
    samples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> LengthControlled:
    """The full form: mean over prompts of sigmoid(u difficulty + w), of the regression
    preference ~ sigmoid(v tanh(d) + u difficulty + w).

    Args:
      preference, model_len, baseline_len, c, samples, confidence, seed: as in `length_controlled`.
      difficulty: [n] of the instructions, from a regression over many models.
      gamed: rows of the gamed baselines, for which w is 0; None: no regularization.
      gamed_weight: lambda, weight of the gamed rows, divided by 2 as there are two versions; > 0.

    Raises:
      ValueError: as `length_controlled`.
    """
    if not gamed_weight > 0:
        raise ValueError(f"gamed_weight must be > 0, got {gamed_weight}")
    rows = _rows(preference, model_len, baseline_len, difficulty)
    extra = _Rows(rows.y[:0], rows.x[:0], rows.weight[:0])
    if gamed is not None:
        y = vector("gamed_preference", gamed.preference, 0, 1)
        _, length, hard = vectors(
            gamed_preference=y, gamed_length=gamed.length, gamed_difficulty=gamed.difficulty
        )
        x = np.stack([np.tanh(length), hard, np.zeros_like(hard)], -1)
        extra = _Rows(y, x, np.full(len(y), gamed_weight / 2))
    return _controlled(rows, extra, c, samples, confidence, seed)


def length_controlled_between(a: LengthWeights, b: LengthWeights, difficulty: ArrayLike) -> float:
    """Length-controlled win rate of model a over model b, both fitted against one baseline:
    mean over prompts of sigmoid((w_a - w_b) + (u_a - u_b) difficulty).

    Args:
      difficulty: [n]; any values for weights of the minimal form.
    """
    hard = vector("difficulty", difficulty)
    logits = (a.model - b.model) + (a.difficulty - b.difficulty) * hard
    return float(special.expit(logits).mean())


class _Rows(NamedTuple):
    """Targets [n], features [n, 2 or 3] (length, difficulty if any, model) and weights [n]."""

    y: np.ndarray
    x: np.ndarray
    weight: np.ndarray


def _rows(
    preference: ArrayLike, model_len: ArrayLike, baseline_len: ArrayLike, hard: ArrayLike | None
) -> _Rows:
    p = vector("preference", preference, 0, 1)
    lengths = vectors(model_len=model_len, baseline_len=baseline_len, low=0)
    columns = [p, *lengths] if hard is None else [p, *lengths, np.asarray(hard, np.float64)]
    names = ("preference", "model_len", "baseline_len", "difficulty")
    vectors(**dict(zip(names, columns, strict=False)))
    # baseline minus model, as in AlpacaEval: a judge of length has a negative weight
    difference = lengths[1] - lengths[0]
    # ddof=1 as in pandas, which AlpacaEval uses
    spread = difference.std(ddof=1) if len(p) > 1 else 0.0
    if not spread > 0:
        raise ValueError("all length differences are equal: their effect cannot be estimated")
    features = [np.tanh(difference / spread), *columns[3:], np.ones(len(p))]
    return _Rows(p, np.stack(features, -1), np.ones(len(p)))


def _controlled(
    rows: _Rows, gamed: _Rows, c: float | None, samples: int, confidence: float, seed: int
) -> LengthControlled:
    # gamed rows first, as in AlpacaEval: the folds depend on the order
    y, x, weight = (np.concatenate(parts) for parts in zip(gamed, rows, strict=True))
    c = _cross_validated(x, y, weight) if c is None else c
    if not c > 0:
        raise ValueError(f"c must be > 0, got {c}")
    w = _logistic.fit(x, y, weight[None], lasso=1 / c).coefficients[0]
    # the counterfactual: the same prompts, answered at the length of the baseline
    at_equal = rows.x.copy()
    at_equal[:, 0] = 0
    predicted = special.expit(at_equal @ w)
    rates = []
    for counts in resample(len(predicted), samples, seed):
        # gamed rows are a regularizer, not a sample of prompts: they keep their weight
        weights = np.concatenate([np.tile(gamed.weight, (len(counts), 1)), counts], -1)
        fits = _logistic.fit(x, y, weights, lasso=1 / c).coefficients
        rates.append((counts * special.expit(fits @ at_equal.T)).mean(-1))
    low, high = percentiles(np.concatenate(rates), confidence)
    difficulty = float(w[1]) if len(w) == 3 else 0.0
    return LengthControlled(
        win_rate=Estimate(float(predicted.mean()), float(low), float(high)),
        standard_error=float(predicted.std(ddof=1) / np.sqrt(len(predicted))),
        raw=float(rows.y.mean()),
        weights=LengthWeights(float(w[0]), difficulty, float(w[-1])),
        c=float(c),
    )


def _cross_validated(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """The C of `GRID` with the least mean held-out cross-entropy; the smallest of equal ones."""
    if len(y) < FOLDS:
        raise ValueError(f"cross-validation needs at least {FOLDS} prompts, got {len(y)}: give c")
    fold = np.arange(len(y)) % FOLDS
    scores = np.empty((len(GRID), FOLDS))
    for i, c in enumerate(GRID):
        trained = np.stack([weight * (fold != f) for f in range(FOLDS)])
        logits = _logistic.fit(x, y, trained, lasso=1 / c).coefficients @ x.T
        losses = weight * (np.logaddexp(0, logits) - y * logits)
        scores[i] = [losses[f, fold == f].mean() for f in range(FOLDS)]
    return float(GRID[np.argmin(scores.mean(-1))])
