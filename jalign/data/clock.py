"""The time that chat templates see. It can be fixed, so that a run renders its data the same on any
day.
"""

from __future__ import annotations

from datetime import datetime, tzinfo

import transformers.utils.chat_template_utils as rendering


class Clock:
    """Replacement for `datetime` in transformers' `strftime_now`.

    Attributes:
      fixed: the time it shows; None is the time that it is.
      asked: whether a template has asked for it.
    """

    def __init__(self) -> None:
        self.fixed: datetime | None = None
        self.asked = False

    def fix(self, text: str | None) -> None:
        """Show this time from now on.

        Args:
          text: a date, or a date and a time, as ISO 8601 writes it; None lets it run.

        Raises:
          ValueError: neither.
        """
        self.fixed = None if text is None else datetime.fromisoformat(text)
        self.asked = False

    def now(self, tz: tzinfo | None = None) -> datetime:
        self.asked = True
        return self.fixed or datetime.now(tz)


CLOCK = Clock()
"""Of all templates of this process."""

# transformers offers no hook for `strftime_now`, which calls `datetime.now()`
rendering.datetime = CLOCK
