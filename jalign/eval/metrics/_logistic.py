"""Weighted logistic regression with soft targets, for many weightings at once, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

_STEPS, _HALVINGS, _SWEEPS = 200, 30, 100
_TOLERANCE = 1e-10  # of a coefficient


class Fit(NamedTuple):
    """Coefficients [S, k], one row per weighting, and whether each has converged, [S]."""

    coefficients: np.ndarray
    converged: np.ndarray


def fit(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, *, ridge: float = 0.0, lasso: float = 0.0
) -> Fit:
    """Minimize sum_i weight_i CE(y_i, sigmoid(x_i . w)) + ridge / 2 |w|^2 + lasso |w|_1.

    Proximal Newton steps: the quadratic model is solved by coordinate descent where there is a
    lasso, directly otherwise, and a step is halved until the objective does not grow.

    Args:
      x: [n, k] features; a constant one is the intercept, and is penalized like the others.
      y: [n] targets in [0, 1].
      weights: [S, n], >= 0.
    """
    # products of features once: the Hessians of all weightings are one matrix product
    outer = (x[:, :, None] * x[:, None, :]).reshape(len(x), -1)
    w = np.zeros((len(weights), x.shape[1]))
    change = np.full(len(weights), np.inf)
    for _ in range(_STEPS):
        # weightings that have converged cost nothing more
        active = change > _TOLERANCE
        if not active.any():
            break
        old, rows = w[active], weights[active]
        p = special.expit(old @ x.T)
        gradient = (rows * (p - y)) @ x + ridge * old
        hessian = ((rows * p * (1 - p)) @ outer).reshape(len(old), *[x.shape[1]] * 2)
        # an all-zero feature would make it singular
        hessian = hessian + (ridge + 1e-12) * np.eye(x.shape[1])
        step = _direction(old, gradient, hessian, lasso)
        new = _halved(old, step, lambda v, r=rows: _objective(v, x, y, r, ridge, lasso))
        w[active], change[active] = new, np.abs(new - old).max(-1)
    # log-odds beyond 50 are a separable sample on its way to infinity
    return Fit(w, (change <= _TOLERANCE) & (np.abs(w).max(-1) < 50))


def sandwich(x: np.ndarray, y: np.ndarray, weight: np.ndarray, w: np.ndarray) -> np.ndarray:
    """[k, k] covariance of coefficients that need not trust the model: H^-1 G H^-1 with
    H = sum weight p (1 - p) x x^T and G = sum (weight (y - p))^2 x x^T (White 1982).
    """
    p = special.expit(x @ w)
    hessian = (x.T * (weight * p * (1 - p))) @ x
    inverse = np.linalg.inv(hessian)
    return inverse @ ((x.T * (weight * (y - p)) ** 2) @ x) @ inverse


def _direction(
    w: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, lasso: float
) -> np.ndarray:
    if not lasso:
        return -np.linalg.solve(hessian, gradient[..., None])[..., 0]
    v = w.copy()
    for _ in range(_SWEEPS):
        last = v.copy()
        for j in range(w.shape[1]):
            curvature = hessian[:, j, j]
            slope = gradient[:, j] + np.einsum("sk,sk->s", hessian[:, j], v - w)
            z = v[:, j] - slope / curvature
            v[:, j] = np.sign(z) * np.maximum(np.abs(z) - lasso / curvature, 0)
        if np.abs(v - last).max() <= _TOLERANCE / 10:
            break
    return v - w


def _halved(
    w: np.ndarray, step: np.ndarray, objective: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    before, size = objective(w), np.ones(len(w))
    for _ in range(_HALVINGS):
        # rounding of the objective must not stop a step at the optimum
        worse = objective(w + size[:, None] * step) > before + 1e-12 * np.abs(before)
        if not worse.any():
            break
        size = np.where(worse, size / 2, size)
    return w + size[:, None] * step


def _objective(
    w: np.ndarray, x: np.ndarray, y: np.ndarray, weights: np.ndarray, ridge: float, lasso: float
) -> np.ndarray:
    logits = w @ x.T
    loss = (weights * (np.logaddexp(0, logits) - y * logits)).sum(-1)
    return loss + ridge / 2 * (w * w).sum(-1) + lasso * np.abs(w).sum(-1)
