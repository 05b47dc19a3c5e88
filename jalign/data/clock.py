"""The time that chat templates see: one that can be fixed, so that a run renders its data tomorrow
as it does today.
"""

from __future__ import annotations

from datetime import datetime, tzinfo

import transformers.utils.chat_template_utils as rendering


class Clock:
    """What transformers' `strftime_now` asks.

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

# it takes no function of ours for a template's, and asks `datetime.now()` where it has its own
rendering.datetime = CLOCK
