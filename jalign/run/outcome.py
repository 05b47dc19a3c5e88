"""How a run ended: learned, diverged, or nothing learned."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jalign.run import summary
from jalign.train.divergence import worse
from jalign.train.exit_code import ExitCode
from jalign.train.online import Online
from jalign.train.source import Offline

if TYPE_CHECKING:
    from jalign.run.hooks import Hooks
    from jalign.run.session import Session


def log_outcome(session: Session, hooks: Hooks) -> ExitCode:
    """Log how a run ended after its last step; return its exit code."""
    s, taken, evaluations = session, int(session.state.step), hooks.evaluations
    if why := divergence(session, hooks):
        s.log.say(
            f"ended after step {taken} of {s.steps}: {why}. A lower optim.learning_rate "
            "helps, from an earlier checkpoint or in another folder"
        )
        return ExitCode.DIVERGED
    # rewards that fail or never differ leave gradients of zero, which no divergence rule sees
    idle = s.source.idle.verdict if isinstance(s.source, Online) else None
    if idle:
        s.log.say(f"ended after step {taken} of {s.steps}: {idle}")
        return ExitCode.NOTHING_LEARNED
    if taken < s.steps:
        why = evaluations.reason
        s.log.say(f"ended after step {taken} of {s.steps}: {why}. Relax that rule to continue.")
    for line in worse(evaluations.so_far):
        s.log.say(f"warning: {line}")
    best = s.checkpoints.pinned if s.options.stop.metric else None
    # a live progress bar redraws itself over lines printed below
    s.display.close()
    summary.conclude(
        s.log, s.out, s.start, taken, time.perf_counter() - s.started, best, s.options.log.trackers
    )
    return ExitCode.OK


def divergence(session: Session, hooks: Hooks) -> str | None:
    """Why a run diverged, checked after its last step; None if it did not."""
    s, evaluations = session, hooks.evaluations
    bad, taken = int(s.state.skipped_in_a_row), int(s.state.step)
    # shorter than max_bad_steps, such a run is not stopped by it, and must not end with 0 either
    if bad and bad >= min(2, taken):
        return (
            f"the last {bad} steps had a loss or gradient that was not finite; nothing was "
            "learned from them"
        )
    if evaluations.so_far:
        return evaluations.divergence
    limit, trend = s.options.stop.divergence, hooks.metrics.trend
    # an on-policy loss stays near 0 whatever is learned: only fixed data have a trend
    fixed = isinstance(s.source, Offline)
    why = trend.diverged(limit, evaluations.by_chance) if fixed else None
    return (
        f"training diverged: {why} (in training; stop.divergence is {limit:.4g})" if why else None
    )
