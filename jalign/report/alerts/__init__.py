"""What a reader of a run should be warned of: pure functions of its record, in words.

README.md of `jalign.report` explains each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from jalign.report.alerts import learning, rewards, steps
from jalign.report.alerts.trend import Alert
from jalign.report.record import RunRecord

__all__ = ["CHECKS", "Alert", "alerts_of", "printed"]

CHECKS: tuple[Callable[[RunRecord], Alert | None], ...] = (
    rewards.kl_without_reward,
    rewards.held_out_reward_falls,
    rewards.entropy_collapsed,
    learning.saturated,
    learning.nothing_learned,
    rewards.length_changed,
    rewards.truncated,
    learning.held_out_loss_rises,
    learning.best_was_earlier,
    learning.both_fall,
    steps.always_clipped,
    steps.skipped,
    rewards.idle_groups,
    rewards.missing_rewards,
    rewards.useless_critic,
    rewards.sampler_differs,
    learning.empty_samples,
    steps.waits_for_data,
    steps.lost_work,
)


def alerts_of(run: RunRecord) -> list[Alert]:
    """All alerts, the severe ones first."""
    given = [alert for check in CHECKS if (alert := check(run))]
    return sorted(given, key=lambda alert: not alert.severe)


def printed(run: RunRecord) -> Iterator[Alert]:
    """The warnings that the run itself has printed."""
    texts = dict.fromkeys(str(row["text"]) for row in run.happened("message"))
    for text in texts:
        where, mark, rest = text.partition("warning: ")
        if mark:
            yield Alert(where + rest)
