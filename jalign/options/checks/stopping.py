"""Checks of the stop rules: each needs an evaluation that can answer it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jalign.options.run import RunOptions


def check_stopping(options: RunOptions) -> Iterator[str]:
    """Stop rules that the run's evaluations can answer."""
    row, stop = options.algorithm, options.stop
    if not stop.given:
        return
    if not options.eval_every:
        yield "stop goes by the evaluations during the run: set eval_every > 0"
    for name in ("kl_budget", "length_ratio", "min_diversity", "min_slope"):
        if row.experience is None and getattr(stop, name):
            yield f"stop.{name} does not apply to {row.name}: it answers no held-out prompts"
    for name in ("kl_budget", "min_slope"):
        if getattr(stop, name) and not row.needs_reference():
            yield f"stop.{name} does not apply: {row.name} reads no reference"
        # the distance to a reference that follows says nothing about drift from the start
        if getattr(stop, name) and row.moves_reference():
            yield (
                f"stop.{name} does not apply: the reference of {row.name} follows the policy "
                "(ref_sync_steps)"
            )
    if stop.min_diversity and options.rollout.max_new_tokens < 2:
        yield "stop.min_diversity needs rollout.max_new_tokens >= 2"
    if row.experience and stop.metric in ("auto", "reward") and not options.reward.scores:
        yield (
            f"stop.metric is {stop.metric}, and nothing gives a reward: set reward.functions, "
            "reward.model or reward.judge"
        )
