"""Lower bounds of numbers in options."""

from __future__ import annotations


def check_least(options: object, **least: float) -> None:
    """Raise ValueError for a field below its smallest value, `name=smallest`."""
    for name, smallest in least.items():
        if (value := getattr(options, name)) < smallest:
            raise ValueError(f"{name} must be >= {smallest}, got {value}")
