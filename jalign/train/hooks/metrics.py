"""Logging of training metrics, and the guard against steps that are not finite."""

from __future__ import annotations

import time
from collections.abc import Sequence

import jax
import numpy as np
import optax

from jalign.core import Arrays
from jalign.log import Logger
from jalign.train.divergence import Trend
from jalign.train.exit_code import ExitCode
from jalign.train.loop import StepInfo, StopTraining
from jalign.train.source import Source

# NaN in these is a bad step; in other metrics it is a mean over no examples.
_OF_EVERY_STEP = ("loss", "grad_norm")


class Metrics:
    """Every `every` steps logs the means of the metrics since the last time, and the speed.

    Metrics of steps in between stay on the device, so that logging does not make the host wait for
    every step. Checkpoints store those that are `pending`, so that a resumed run logs the same
    lines as one that was not stopped. Speed excludes phases such as compilation and evaluation.

    Args:
      source: of the run: tokens consumed, epoch, and metrics of its own.
      max_bad_steps: after so many skipped steps in a row raise `StopTraining`.
      pending: stored in the checkpoint from which the run resumes.
    """

    def __init__(
        self,
        log: Logger,
        source: Source,
        schedule: optax.Schedule | None,
        *,
        every: int,
        steps: int,
        max_bad_steps: int,
        pending: Sequence[dict[str, float]] = (),
        trend: Trend | None = None,
    ):
        self.trend = trend or Trend()
        self.log, self.source, self.schedule = log, source, schedule
        self.every, self.steps, self.max_bad_steps = every, steps, max_bad_steps
        self.waiting: list[Arrays | dict[str, float]] = list(pending)
        self.earlier = len(self.waiting)  # steps taken by the process before this one
        self.since, self.aside_s, self.tokens = time.perf_counter(), log.aside_s, source.tokens

    def __call__(self, info: StepInfo) -> None:
        self.waiting.append(info.metrics)
        self.log.tick(info.step)
        if info.step % self.every and not info.last:
            return
        rows = self.pending()
        timed_steps = len(rows) - self.earlier
        self.waiting, self.earlier = [], 0
        self.trend.add(info.step, map(with_margin, rows))
        means = {name: _mean([row[name] for row in rows], name) for name in rows[0]}
        means |= self._progress(info.step, rows[-1], timed_steps) | self.source.metrics()
        self.log.write(info.step, with_margin(means) | _memory())
        bad_steps = max(int(row["skipped_in_a_row"]) for row in rows)
        if bad_steps >= self.max_bad_steps:
            raise StopTraining(
                f"{bad_steps} steps in a row had a loss or gradient that was not finite, the last "
                f"at step {info.step}; nothing was learned from them",
                ExitCode.DIVERGED,
            )

    def _progress(self, step: int, newest: dict[str, float], timed_steps: int) -> dict[str, float]:
        """Counts, learning rate and speed; starts the next interval."""
        now, tokens = time.perf_counter(), self.source.tokens
        seconds = max(now - self.since - (self.log.aside_s - self.aside_s), 1e-9)
        skipped, in_a_row = (int(newest[name]) for name in ("skipped", "skipped_in_a_row"))
        # Skipped steps do not advance the optimizer's count, which the schedule reads.
        updates_before = step - skipped - (not in_a_row)
        # An optax optimizer from Python does not tell its schedule.
        schedule = self.schedule
        rate = {"learning_rate": float(np.asarray(schedule(updates_before)))} if schedule else {}
        progress = {
            "skipped": skipped,
            "skipped_in_a_row": in_a_row,
            **rate,
            "epoch": self.source.epoch(step),
            "num_tokens": tokens,
            "tokens_per_second": (tokens - self.tokens) / seconds,
            "step_time": seconds / timed_steps,
            "eta_s": seconds / timed_steps * (self.steps - step),
        }
        self.since, self.aside_s, self.tokens = now, self.log.aside_s, tokens
        return progress

    def pending(self) -> list[dict[str, float]]:
        """The metrics of the steps that are not logged yet; waits for the device."""
        return [{k: float(v) for k, v in row.items()} for row in jax.device_get(self.waiting)]


def with_margin(means: dict[str, float]) -> dict[str, float]:
    """Adds rewards/margins to metrics of unpaired data: the difference of the two means. Losses on
    pairs report their own.
    """
    chosen, rejected = means.get("rewards/chosen"), means.get("rewards/rejected")
    if chosen is None or rejected is None or "rewards/margins" in means:
        return means
    return means | {"rewards/margins": chosen - rejected}


def _memory() -> dict[str, float]:
    """Peak memory of the first device; {} on backends that do not report it, such as CPU."""
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"memory/peak_gib": peak / 2**30} if peak else {}


def _mean(values: list[float], name: str) -> float:
    finite = values if name in _OF_EVERY_STEP else [v for v in values if not np.isnan(v)]
    return float(np.mean(finite)) if finite else float("nan")
