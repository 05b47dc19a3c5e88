"""Renamed config keys: an old key is refused with its new name, but files of older runs
(config.json, the identity in checkpoints) stay readable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Renamed(NamedTuple):
    """A key's new name, and old value -> new value where the values were renamed too."""

    key: str
    values: Mapping[Any, Any] = {}


# refused and not translated in configs: two names for one key would stay forever
RENAMED = {
    "data.train_on": Renamed("data.loss_on"),
    "data.turns": Renamed("data.loss_turns"),
    "optim.final": Renamed("optim.final_lr_fraction"),
    "sample.sentiment": Renamed("sample.score", {True: "sentiment", False: None}),
    "stop.better": Renamed("stop.mode", {"higher": "max", "lower": "min"}),
    "stop.least_diversity": Renamed("stop.min_diversity"),
    "stop.least_gain": Renamed("stop.min_delta"),
}
"""Old key -> its new name."""

# A checkpoint's identity has a section under another name than the config.
_IDENTITY_SECTIONS = {"optim": "optimizer"}


def refusal(key: str) -> str | None:
    """The error message for a renamed key; None for any other.

    >>> refusal("stop.better")
    "option 'stop.better' is now 'stop.mode' (higher is max, lower is min)"
    """
    if key not in RENAMED:
        return None
    new, values = RENAMED[key]
    pairs = ", ".join(f"{_yaml(old)} is {_yaml(now)}" for old, now in values.items())
    return f"option {key!r} is now {new!r}" + (f" ({pairs})" if pairs else "")


def with_new_keys(saved: Mapping[str, object]) -> dict[str, Any]:
    """A run's config.json, of any version, with today's keys."""
    return _with_new_keys(saved, {})


def identity_with_new_keys(facts: Mapping[str, object]) -> dict[str, object]:
    """The identity in a checkpoint, of any version, with today's keys."""
    return _with_new_keys(facts, _IDENTITY_SECTIONS)


def _with_new_keys(saved: Mapping[str, Any], sections: Mapping[str, str]) -> dict[str, Any]:
    result = dict(saved)
    for old, (new, values) in RENAMED.items():
        section, _, old_name = old.partition(".")
        section = sections.get(section, section)
        content = result.get(section)
        if not isinstance(content, Mapping) or old_name not in content:
            continue
        # a copy: what was read from the file stays as it is
        content = dict(content)
        value = content.pop(old_name)
        result[section] = content | {new.partition(".")[2]: values.get(value, value)}
    return result


def _yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower()
