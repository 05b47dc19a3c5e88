"""Count rollouts that teach nothing, warn about them, and finally end the run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jalign.checkpoint.manifest import Facts

LOG = logging.getLogger(__name__)

FAILURES = 3
"""A run ends after this many rollouts in a row in which rewards fail for all responses, since
retries no longer help. At the first rollout one is enough, since nothing is lost yet."""


@dataclass
class Idle:
    """Counts of rollouts that taught nothing: no response has a reward, or all that have one have
    an advantage of 0 or are excluded.

    Attributes:
      limit: rollouts in a row that teach nothing before the run ends; 0: any number.
      in_a_row: such rollouts, up to now.
      failing: rollouts in a row without any reward in which a reward failed.
      rollouts: all so far.
      rewarded: whether any response of them had a reward.
      failures: what failed and why in the last rollout that had no reward.
    """

    limit: int
    in_a_row: int = 0
    failing: int = 0
    rollouts: int = 0
    rewarded: bool = False
    failures: str = ""
    _fresh: bool = False  # a rollout was added since the run began or resumed

    def add(self, *, taught: bool, rewarded: bool, failures: Mapping[str, str]) -> None:
        """Count a rollout; warn at the first idle one in a row, and at half of the limit.

        Args:
          taught: whether there is anything to learn from it.
          rewarded: whether any response has a reward.
          failures: name -> why a reward failed.
        """
        self.rollouts, self._fresh = self.rollouts + 1, True
        self.rewarded |= rewarded
        self.in_a_row = 0 if taught else self.in_a_row + 1
        self.failing = self.failing + 1 if failures and not rewarded else 0
        if not rewarded:
            self.failures = "\n".join(failures.values())
        if not taught and rewarded and self.in_a_row in (1, max(self.limit // 2, 2)):
            ends = f"; the run ends at {self.limit}" if self.limit else ""
            LOG.warning("%s (%d in a row%s)", _EQUAL, self.in_a_row, ends)

    @property
    def hopeless(self) -> str | None:
        """Why the run should end before a step is taken: rewards fail, and always did."""
        if not (self.limit and self._fresh and self.failing and not self.rewarded):
            return None
        return f"no response of the first rollout has a reward:\n{self.failures}"

    @property
    def reason(self) -> str | None:
        """Why the run should end after the step just taken; None if it continues."""
        if not (self.limit and self._fresh):
            return None
        if self.failing >= min(FAILURES, self.limit):
            return f"{self.failing} rollouts in a row have no reward at all:\n{self.failures}"
        if self.in_a_row < self.limit:
            return None
        why = _EQUAL if self.rewarded else _NONE
        return (
            f"{self.in_a_row} rollouts in a row taught nothing: {why}. rollout.max_idle says how "
            "many may, 0 any number"
        )

    @property
    def verdict(self) -> str | None:
        """The message for a finished run that never had a reward; None otherwise."""
        if self.reason or not (self.limit and self.rollouts) or self.rewarded:
            return self.reason
        return f"nothing was learned in {self.rollouts} rollouts: {_NONE}"

    def facts(self) -> dict[str, object]:
        """For a checkpoint."""
        return {n: x for n, x in asdict(self).items() if n not in ("limit", "_fresh", "failures")}

    def after(self, facts: Facts) -> Idle:
        """The same limit, with the counts of a checkpoint."""
        return replace(self, **facts, _fresh=False)


_EQUAL = (
    "a rollout teaches nothing: the rewards of the responses to a prompt are all equal, or fewer "
    "than two have one"
)
_NONE = "no response has a reward: every reward function says that it does not apply (None)"
