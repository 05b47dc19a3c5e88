"""The fields of a request's body, each read once and checked; what nothing reads is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jalign.core import did_you_mean
from jalign.serve.errors import ApiError, bad_field

# Of whoever asks and of a provider's storage: they change no answer.
IGNORED = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention", "prediction",
)  # fmt: skip


class Fields:
    """The fields of a JSON object; null counts as not given, as in OpenAI's API.

    Raises:
      ApiError: the body is no object.
    """

    def __init__(self, body: object):
        if not isinstance(body, Mapping):
            raise ApiError(400, "the body must be a JSON object")
        self._left = {str(k): v for k, v in body.items() if v is not None and k not in IGNORED}
        self._known: list[str] = []

    def any(self, name: str, default: Any = None) -> Any:
        """The value of a field of any type."""
        self._known.append(name)
        return self._left.pop(name, default)

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number in [low, high]."""
        value = self.any(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise bad_field(name, f"{name} must be a number, got {value!r:.80}")
        if not low <= value <= high:
            raise bad_field(name, f"{name} must be in [{low:g}, {high:g}], got {value}")
        return float(value)

    def integer(
        self, name: str, default: int | None, low: int | None, high: int | None = None
    ) -> int | None:
        """An integer of at least `low` and at most `high`, or the default."""
        value = self.any(name, default)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad_field(name, f"{name} must be an integer, got {value!r:.80}")
        if (low is not None and value < low) or (high is not None and value > high):
            limits = f"at least {low}" if high is None else f"in [{low}, {high}]"
            raise bad_field(name, f"{name} must be {limits}, got {value}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """True or false."""
        value = self.any(name, default)
        if not isinstance(value, bool):
            raise bad_field(name, f"{name} must be true or false, got {value!r:.80}")
        return value

    def text(self, name: str, default: str | None = None) -> str | None:
        """A text."""
        value = self.any(name, default)
        if value is not None and not isinstance(value, str):
            raise bad_field(name, f"{name} must be a text, got {value!r:.80}")
        return value

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A text or a list of texts, none of them empty."""
        value = self.any(name, ())
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, Sequence) or not all(isinstance(v, str) and v for v in values):
            raise bad_field(name, f"{name} must be a text or a list of texts, got {value!r:.80}")
        if len(values) > most:
            raise bad_field(name, f"{name} may have {most} texts, got {len(values)}")
        return tuple(values)

    def only(self, name: str, *allowed: object) -> None:
        """Refuse a field of OpenAI's API that is not supported, unless it changes nothing."""
        value = self.any(name)
        if value is not None and value not in allowed:
            raise bad_field(name, f"{name} is not supported here, got {value!r:.80}")

    def finish(self) -> None:
        """Raise ApiError for a field that nothing has read: it might change the answer."""
        for name in self._left:
            near = did_you_mean(name, self._known)
            raise bad_field(name, f"the field {name!r} is unknown{near}", "unknown_parameter")
