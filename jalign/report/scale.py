"""Axes: ticks at round numbers, texts of numbers, and fewer points where a line has too many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Axis(NamedTuple):
    """A linear or logarithmic axis from `low` to `high`."""

    low: float
    high: float
    ticks: list[float]
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`."""
        low, high, x = self.low, self.high, value
        if self.log:
            low, high, x = math.log10(low), math.log10(high), math.log10(max(value, self.low))
        return (x - low) / (high - low)


def axis(values: Sequence[float], *, ticks: int = 4, log: bool = False) -> Axis:
    """An axis around finite values, its ends at ticks.

    Args:
      values: at least one.
      ticks: about so many steps between ticks.
      log: ticks at powers of ten; the values must be positive.
    """
    low, high = min(values), max(values)
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        last = max(last, first + 1)
        return Axis(10.0**first, 10.0**last, [10.0**k for k in range(first, last + 1)], True)
    # a constant has no scale of its own
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-12):
        pad = abs(high) * 0.05 or 1.0
        low, high = low - pad, high + pad
    step = _round_step((high - low) / ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, [k * step for k in range(first, last + 1)])


def steps_axis(last: int) -> Axis:
    """An axis of steps from 0."""
    step = max(_round_step(max(last, 1) / 4), 1)
    return Axis(0, max(last, 1), [k * step for k in range(int(last / step) + 1)])


def wants_log(values: Sequence[float]) -> bool:
    """Whether positive values span more than three orders of magnitude."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 1000


def compact(x: float | None, digits: int = 3) -> str:
    """A number in few characters.

    >>> [compact(x) for x in (0.69314, 12345.6, -0.00002, 1234567, 0, 64.0, None)]
    ['0.693', '12.3k', '-2e-05', '1.23M', '0', '64', '–']
    """
    if x is None or not math.isfinite(x):
        return "–"  # noqa: RUF001
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(x) >= size:
            return f"{x / (1000.0 if letter == 'k' else size):.{digits}g}{letter}"
    return f"{x:.{max(digits, 4)}g}" if abs(x) >= 1000 else f"{x:.{digits}g}"


def duration(seconds: float) -> str:
    """
    >>> duration(0.42), duration(75), duration(7325), duration(200000)
    ('0.42 s', '1 min 15 s', '2 h 2 min', '2 d 8 h')
    """
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {round(seconds) % 60} s"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def gib(size: float) -> str:
    """
    >>> gib(3 * 2**30), gib(19037248)
    ('3 GiB', '18.2 MiB')
    """
    unit, name = (2**30, "GiB") if size >= 2**30 else (2**20, "MiB")
    return f"{size / unit:.3g} {name}"


def thinned(
    steps: Sequence[int], values: Sequence[float], most: int = 600
) -> tuple[list[int], list[float]]:
    """At most so many points: the lowest and the highest of each of `most` / 2 ranges of steps, so
    that no spike is lost.
    """
    if len(steps) <= most:
        return list(steps), list(values)
    kept, size = set(), len(steps) / (most // 2)
    for i in range(most // 2):
        part = range(int(i * size), max(int((i + 1) * size), int(i * size) + 1))
        kept |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    order = sorted(kept)
    return [steps[i] for i in order], [values[i] for i in order]


def smoothed(values: Sequence[float], span: float) -> list[float]:
    """Exponential moving average with its bias removed (Adam's): the first value is itself.

    Args:
      span: points in which the weight of a value falls to 1/e.
    """
    keep, mean, weight, result = math.exp(-1 / max(span, 1e-9)), 0.0, 0.0, []
    for x in values:
        mean, weight = keep * mean + (1 - keep) * x, keep * weight + 1 - keep
        result.append(mean / weight)
    return result


def _round_step(step: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(k * power for k in (1, 2, 2.5, 5, 10) if k * power >= step * (1 - 1e-9))
