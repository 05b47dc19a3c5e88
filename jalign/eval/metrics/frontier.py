"""True reward against KL to the start: the frontier, and the scaling law of over-optimization.

Gao, Schulman and Hilton 2022, https://arxiv.org/abs/2210.10760: with d = sqrt(KL), the gold reward
above the start's is d (alpha - beta d) for best-of-n and d (alpha - beta log d) for RL.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jalign.eval.metrics._arrays import in_range, vector, vectors

FORMS = ("rl", "bon")


class MeanError(NamedTuple):
    """A mean and its standard error."""

    mean: float
    standard_error: float


class ScalingFit(NamedTuple):
    """The law of over-optimization, fitted.

    Attributes:
      form: "rl" or "bon".
      alpha, beta: in reward per sqrt(nat), and per nat for "bon".
      errors: standard errors of alpha and beta.
      covariance: [2, 2].
      peak_kl: KL (nats) of the largest reward, (alpha / 2 beta)^2 for "bon" and
        exp(2 (alpha / beta - 1)) for "rl"; infinite if beta <= 0.
      chi_squared: sum of squared residuals over squared errors.
    """

    form: str
    alpha: float
    beta: float
    errors: tuple[float, float]
    covariance: np.ndarray
    peak_kl: float
    chi_squared: float


def k1_kl(logps: ArrayLike, ref_logps: ArrayLike) -> MeanError:
    """KL(policy || reference) in nats per response: the mean of log p - log p_ref over responses
    that the policy sampled (k1), with its standard error.

    Args:
      logps, ref_logps: [n] log-probs summed over the response, n >= 2.

    Raises:
      ValueError: fewer than two responses, other shapes, or numbers that are not finite.
    """
    p, q = vectors(logps=logps, ref_logps=ref_logps)
    if len(p) < 2:
        raise ValueError("a standard error needs at least 2 responses")
    ratio = p - q
    return MeanError(float(ratio.mean()), float(ratio.std(ddof=1) / math.sqrt(len(ratio))))


def fit_frontier(
    kl: ArrayLike, gold: ArrayLike, *, form: str = "rl", errors: ArrayLike | None = None
) -> ScalingFit:
    """Weighted least squares of gold on d (alpha - beta d), or d (alpha - beta log d).

    Args:
      kl: [n] nats per response, > 0, at least two different ones.
      gold: [n] true reward minus that of the start.
      form: "rl" or "bon".
      errors: [n] standard errors of gold, > 0, which give those of alpha and beta; None: equal
        errors, estimated from the residuals (NaN for two points).

    Raises:
      ValueError: empty or other shapes, NaN, a KL or an error <= 0, an unknown form, or one KL.
    """
    x, y = vectors(kl=kl, gold=gold)
    if x.min() <= 0:
        raise ValueError(f"kl must be > 0, got {x.min():g}: leave out the start itself")
    design = _design(np.sqrt(x), form)
    sigma = vector("errors", np.ones(len(x)) if errors is None else errors)
    if sigma.shape != x.shape or sigma.min() <= 0:
        raise ValueError(f"errors must be {x.shape} and > 0, got {sigma.shape}, {sigma.min():g}")
    if len(np.unique(x)) < 2:
        raise ValueError("two parameters need at least two different KLs")
    scaled = design / sigma[:, None]
    coefficients = np.linalg.lstsq(scaled, y / sigma, rcond=None)[0]
    covariance = np.linalg.inv(scaled.T @ scaled)
    # errors that are known are not rescaled by the residuals, those that are not are
    residual = float((((y - design @ coefficients) / sigma) ** 2).sum())
    if errors is None:
        covariance = covariance * (residual / (len(x) - 2) if len(x) > 2 else math.nan)
    alpha, beta = map(float, coefficients)
    peak = math.inf
    if beta > 0:
        power = 2 * (alpha / beta - 1)
        # beyond it the float overflows, and no run gets there
        rl = math.exp(power) if power < 700 else math.inf
        peak = max(alpha / (2 * beta), 0.0) ** 2 if form == "bon" else rl
    deviations = np.sqrt(np.diag(covariance))
    pair = float(deviations[0]), float(deviations[1])
    return ScalingFit(form, alpha, beta, pair, covariance, peak, residual)


def predict_gold(fit: ScalingFit, kl: ArrayLike) -> np.ndarray:
    """[n] gold reward above the start's that the law expects at each KL, >= 0; 0 at KL 0."""
    x = vector("kl", kl, 0)
    some = x > 0
    design = _design(np.sqrt(np.where(some, x, 1.0)), fit.form)
    return np.where(some, design @ np.array([fit.alpha, fit.beta]), 0.0)


def gold_at_kl(kl: ArrayLike, gold: ArrayLike, at: ArrayLike, *, start: float = 0.0) -> np.ndarray:
    """[m] largest mean reward at a KL of at most `at`: the upper concave hull of the points and of
    the start.

    A point between two policies is reached by drawing one of them for each prompt: reward is
    linear and KL at most linear in the share. Beyond the best point it stays at its reward.

    Args:
      kl: [n] nats, >= 0.
      gold: [n] true reward.
      at: [m] nats, >= 0.
      start: true reward of the start, whose KL is 0.

    Raises:
      ValueError: empty or other shapes, NaN, or a negative KL.

    >>> gold_at_kl([1.0, 4.0, 9.0], [2.0, 3.0, 1.0], [0.5, 2.5, 9.0]).tolist()
    [1.0, 2.5, 3.0]
    """
    where = vector("at", at, 0)
    x, y = _hull(kl, gold, start)
    return np.interp(where, x, y)


def frontier_area(
    kl: ArrayLike, gold: ArrayLike, *, start: float = 0.0, max_kl: float | None = None
) -> float:
    """Mean height of the frontier of `gold_at_kl` over [0, max_kl], in reward: its area divided by
    max_kl, exact.

    Args:
      kl, gold, start: as in `gold_at_kl`.
      max_kl: nats, > 0, the same for all methods that are compared; None: the largest KL.

    Raises:
      ValueError: as `gold_at_kl`, or max_kl <= 0.
    """
    x, y = _hull(kl, gold, start)
    end = float(np.max(np.asarray(kl, np.float64))) if max_kl is None else max_kl
    if not 0 < end < math.inf:
        raise ValueError(f"max_kl must be > 0 and finite, got {end}")
    knots = np.unique(np.append(x[x < end], end))
    return float(np.trapezoid(np.interp(knots, x, y), knots) / end)


def _design(d: np.ndarray, form: str) -> np.ndarray:
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    return np.stack([d, -d * (d if form == "bon" else np.log(d))], -1)


def _hull(kl: ArrayLike, gold: ArrayLike, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the smallest concave, non-decreasing function above the points and the start."""
    x, y = vectors(kl=kl, gold=gold)
    in_range("kl", x, low=0)
    in_range("start", np.array([start], np.float64))
    points = sorted(zip([0.0, *x.tolist()], [start, *y.tolist()], strict=True))
    hull: list[tuple[float, float]] = []
    for point in points:
        if hull and point[1] <= max(height for _, height in hull):
            continue  # more KL for no more reward
        if hull and point[0] == hull[-1][0]:
            hull.pop()
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    xs, ys = zip(*hull, strict=True)
    return np.array(xs), np.array(ys)


def _slope(a: tuple[float, float], b: tuple[float, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])
