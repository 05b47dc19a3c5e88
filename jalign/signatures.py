"""What a signature declares: arrays (positional) and hyper-parameters (keyword-only)."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence


def arrays_of(fn: Callable) -> tuple[str, ...]:
    """The arrays a loss takes: its positional parameters, by name."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    return tuple(p.name for p in inspect.signature(fn).parameters.values() if p.kind in kinds)


AXIS_NAME = "axis_name"
"""Keyword of a loss that is not a hyper-parameter: the mesh axis that splits its batch."""


def hyper_of(fn: Callable) -> dict[str, float]:
    """The hyper-parameters of a loss: its keyword-only parameters and their defaults."""
    parameters = inspect.signature(fn).parameters.values()
    keywords = {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    # the mesh axis is set by the step, never by a config
    return {name: default for name, default in keywords.items() if name != AXIS_NAME}


def unchecked(fn: Callable) -> Callable:
    """The function without the shape checks of tests: an example array has size 1 everywhere."""
    # a wrapper that declares the signature of what it wraps is as far as `signature` looks
    return inspect.unwrap(fn, stop=lambda f: hasattr(f, "__signature__"))


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no name is near."""
    # str: keys of YAML and columns of tables need not be text.
    near = difflib.get_close_matches(str(name), list(map(str, allowed)), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what is allowed when nothing is near."""
    allowed = sorted(map(str, allowed))
    return nearest(name, allowed) or f"; there is: {', '.join(allowed) or 'none'}"


def check_options(options: Iterable[str], fn: Callable, reserved: Sequence[str] = ()) -> None:
    """Raise ValueError for a key that is no keyword argument of `fn`, or is reserved."""
    allowed = set(hyper_of(fn)) - set(reserved)
    for name in options:
        if name not in allowed:
            raise ValueError(f"options: no option {name!r}{did_you_mean(name, allowed)}")
