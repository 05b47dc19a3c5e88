"""The decorator of experiences that compare scores, read as `Experience.relative`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from jalign.core.experience import Relative

ExperienceFn = TypeVar("ExperienceFn", bound=Callable[..., dict[str, Any]])


def relative_to(
    to: Literal["group", "rollout"] | None, min_responses: int = 1
) -> Callable[[ExperienceFn], ExperienceFn]:
    """Mark a function as `Relative`: a number added to all scores of a group or rollout makes no
    difference (`None`: it may), and it compares at least `min_responses` responses to a prompt.

    Rewards then lose their mean in float64 before they become float32, which cannot tell
    100,000,001 from 100,000,000.
    """

    def mark(fn: ExperienceFn) -> ExperienceFn:
        # on the function, not in a table: a user's own experience can have it, too
        fn.relative = Relative(to, min_responses)  # type: ignore[attr-defined]
        return fn

    return mark
