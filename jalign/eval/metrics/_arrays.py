"""Checks of the arrays that metrics take, with errors that name them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def vectors(
    *, low: float = -math.inf, high: float = math.inf, **arrays: ArrayLike
) -> list[np.ndarray]:
    """Arrays by name as [n] float64, n >= 1, all of one length, finite and in [low, high].

    Raises:
      ValueError: another shape, a number that is not finite, or one out of range.
    """
    values = {name: np.asarray(x, np.float64) for name, x in arrays.items()}
    names = " and ".join(values)
    shapes = {x.shape for x in values.values()}
    if len(shapes) > 1 or any(len(shape) != 1 or not shape[0] for shape in shapes):
        given = ", ".join(str(x.shape) for x in values.values())
        raise ValueError(f"{names} must be [n] with n >= 1, got {given}")
    for name, x in values.items():
        in_range(name, x, low, high)
    return list(values.values())


def vector(name: str, x: ArrayLike, low: float = -math.inf, high: float = math.inf) -> np.ndarray:
    """One array of `vectors`."""
    values = np.asarray(x, np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} must be [n] with n >= 1, got {values.shape}")
    return in_range(name, values, low, high)


def in_range(
    name: str, x: np.ndarray, low: float = -math.inf, high: float = math.inf
) -> np.ndarray:
    """`x` itself; ValueError for a number that is not finite or not in [low, high]."""
    if not np.isfinite(x).all():
        raise ValueError(f"{name} has {int((~np.isfinite(x)).sum())} values that are not finite")
    if x.size and not low <= x.min() <= x.max() <= high:
        raise ValueError(f"{name} must be in [{low:g}, {high:g}], got {x.min():g} to {x.max():g}")
    return x


def indices(name: str, x: ArrayLike, size: int | None = None) -> np.ndarray:
    """[n] int64, n >= 1, each in [0, size)."""
    values = np.asarray(x)
    if values.ndim != 1 or not values.size or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"{name} must be [n] integers, n >= 1, got {values.dtype} of shape {values.shape}"
        )
    if values.min() < 0 or (size is not None and values.max() >= size):
        most = "" if size is None else f" and < {size}"
        raise ValueError(f"{name} must be >= 0{most}, got {values.min()} to {values.max()}")
    return values.astype(np.int64)


def fraction(name: str, value: float) -> float:
    """`value` itself; ValueError unless it is in (0, 1)."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), got {value}")
    return value
