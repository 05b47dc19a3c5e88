"""Density ratio of prompts with desirable and with undesirable responses (BCO).

BCO (Jung et al. 2024, https://arxiv.org/abs/2404.04656, Sec. 4.3) weighs undesirable examples by
this ratio where the two sets of prompts differ: a logistic classifier on prompt embeddings
separates them, and p / (1 - p) is the ratio of the densities.
"""

from __future__ import annotations

import numpy as np

STEPS = 50  # Newton's method on a convex function needs few
TOLERANCE = 1e-10


def density_ratio(features: np.ndarray, labels: np.ndarray, *, ridge: float = 1.0) -> np.ndarray:
    """p(desirable | prompt) / p(undesirable | prompt) of every example, [n] float32.

    A logistic regression with an L2 penalty, fitted by Newton's method on standardized features;
    both classes have the same total weight, so an uninformative prompt has ratio 1.

    Args:
      features: [n, d], such as the mean token embedding of each prompt.
      labels: [n], above 0.5 where the response is desirable.
      ridge: weight of the penalty against the mean loss times n; the intercept is free.

    Raises:
      ValueError: all labels are the same.
    """
    y = np.asarray(labels, float) > 0.5
    if y.all() or not y.any():
        raise ValueError("density_ratio needs desirable and undesirable examples; one is missing")
    x = np.asarray(features, float)
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-8)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    weights = np.where(y, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    penalty = np.full(x.shape[1], ridge)
    # The intercept is free; not 0, so that the curvature stays invertible when p saturates.
    penalty[-1] = 1e-8
    theta = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = _sigmoid(x @ theta)
        slope = x.T @ (weights * (p - y)) + penalty * theta
        curvature = (x * (weights * p * (1 - p))[:, None]).T @ x + np.diag(penalty)
        move = np.linalg.solve(curvature, slope)
        theta -= move
        if np.abs(move).max() < TOLERANCE:
            break
    return np.exp(np.clip(x @ theta, -20, 20)).astype(np.float32)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -40, 40)))
