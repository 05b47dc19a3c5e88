"""What happens after a step: log, guard, evaluate, sample, save. Each is a callable of a
`StepInfo`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
import optax

from jalign.checkpoint.checkpointer import Checkpointer
from jalign.core import Frozen, Mean, TrainState
from jalign.layout import MicroBatches
from jalign.log import RunLog
from jalign.parallel import hosts
from jalign.train.divergence import Trend
from jalign.train.loop import StepInfo, StopTraining
from jalign.train.online import Online
from jalign.train.preemption import ExitCode, Preemption
from jalign.train.source import Offline
from jalign.train.step import with_reference
from jalign.train.stopping import Evaluation, StopRules

_OF_EVERY_STEP = ("loss", "grad_norm")  # NaN here is a bad step, elsewhere a mean over nothing


class Metrics:
    """Every `every` steps: the means of the metrics since the last time, with speed; and the guard.
    Speed is that of training: phases such as compiling and evaluating are left out.

    Steps in between are not read, so the device is not waited for. A checkpoint between two lines
    keeps what is `pending`, so that a run that goes on writes the lines of one that never stopped.
    """

    def __init__(
        self,
        log: RunLog,
        source: Offline | Online,
        schedule: optax.Schedule,
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
        self.waiting: list[Any] = list(pending)
        self.earlier = len(self.waiting)  # of them taken before this process began
        self.since, self.aside_s, self.tokens = time.perf_counter(), log.aside_s, source.tokens

    def __call__(self, moment: StepInfo) -> None:
        self.waiting.append(moment.metrics)
        self.log.tick(moment.step)
        if moment.step % self.every and not moment.last:
            return
        rows = self.pending()
        timed = len(rows) - self.earlier
        self.waiting, self.earlier = [], 0
        self.trend.add(moment.step, map(with_margin, rows))
        means = {name: _mean([row[name] for row in rows], name) for name in rows[0]}
        worst = max(int(row["skipped_in_a_row"]) for row in rows)
        now, tokens = time.perf_counter(), self.source.tokens
        seconds = max(now - self.since - (self.log.aside_s - self.aside_s), 1e-9)
        skipped, in_a_row = (int(rows[-1][name]) for name in ("skipped", "skipped_in_a_row"))
        updates = moment.step - skipped - (not in_a_row)  # before this step: the optimizer's clock
        means |= {
            "skipped": skipped,
            "skipped_in_a_row": in_a_row,
            "learning_rate": float(np.asarray(self.schedule(updates))),
            "epoch": self.source.epoch(moment.step),
            "num_tokens": tokens,
            "tokens_per_second": (tokens - self.tokens) / seconds,
            "step_time": seconds / timed,
            "eta_s": seconds / timed * (self.steps - moment.step),
        }
        means |= self.source.metrics()
        self.log.write(moment.step, with_margin(means) | _memory())
        self.since, self.aside_s, self.tokens = now, self.log.aside_s, tokens
        if worst >= self.max_bad_steps:
            raise StopTraining(
                f"{worst} steps in a row had a loss or gradient that was not finite, the last at "
                f"step {moment.step}; nothing was learnt from them",
                ExitCode.DIVERGED,
            )

    def pending(self) -> list[dict[str, float]]:
        """The metrics of the steps that no line holds yet; waits for the device."""
        return [{k: float(v) for k, v in row.items()} for row in jax.device_get(self.waiting)]


def _aside(log: RunLog, phase: str, state: TrainState) -> AbstractContextManager[Any]:
    """A phase that begins when the steps before it have ended, whose time is training's."""
    jax.block_until_ready(state.params)
    return log.phase(phase)


def with_margin(means: dict[str, float]) -> dict[str, float]:
    """Binary data have no pairs: their margin is the difference of the two means."""
    chosen, rejected = means.get("rewards/chosen"), means.get("rewards/rejected")
    if chosen is None or rejected is None or "rewards/margins" in means:
        return means
    return means | {"rewards/margins": chosen - rejected}


def _memory() -> dict[str, float]:
    """Peak memory of the first device, where it keeps count."""
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"memory/peak_gib": peak / 2**30} if peak else {}


def _mean(values: list[float], name: str) -> float:
    known = values if name in _OF_EVERY_STEP else [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def due(every: int, step: int, last: bool) -> bool:
    """Whether this step is one of every so many (0: none), or the last."""
    return last or bool(every and step % every == 0)


class Evaluations:
    """The held-out evaluations of a run so far, oldest first.

    As a hook it ends the run where a rule says so; what evaluates stands before it, what must
    happen at the end after it.

    Args:
      log: of the run.
      rules: when to end, and what is best.
      earlier: those of the checkpoint that the run goes on from.
      by_chance: logps/chosen of a model that knows nothing.
    """

    def __init__(
        self,
        log: RunLog,
        rules: StopRules = StopRules(),
        earlier: Sequence[Evaluation] = (),
        *,
        by_chance: float = -math.inf,
    ):
        self.log, self.rules, self.by_chance = log, rules, by_chance
        self.so_far: list[Evaluation] = [dict(one) for one in earlier]
        if self.so_far:
            rules.check(self.so_far[0])

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record an evaluation.

        Raises:
          ValueError: it is the first, and lacks what a rule reads.
        """
        self.log.write(step, metrics, "eval")
        finite = {name: float(x) for name, x in metrics.items() if np.isfinite(x)}
        self.so_far.append({"step": step} | finite)
        if len(self.so_far) == 1:
            self.rules.check(self.so_far[0])

    def has(self, step: int) -> bool:
        """Whether this step is the newest that was evaluated."""
        return bool(self.so_far) and self.so_far[-1]["step"] == step

    @property
    def best(self) -> Evaluation | None:
        """The best so far, which may be the one before the first step; None without a metric."""
        return self.rules.best(self.so_far)

    def is_best(self, step: int) -> bool:
        """Whether this step has just been evaluated and is the best; every process must ask."""
        if self.rules.metric is None or not self.has(step):
            return False
        return hosts.any_process(self.best is self.so_far[-1])  # programs may differ in a bit

    @property
    def reason(self) -> str | None:
        """Why the run has ended before its last step, in words; None: it goes on."""
        return self.rules.reason(self.so_far, self.by_chance)

    @property
    def divergence(self) -> str | None:
        """Why the last evaluation is that of a run that diverged; None: it is not."""
        return self.rules.diverged(self.so_far, self.by_chance)

    def over(self) -> bool:
        """Whether there is a reason on any process; every process must ask."""
        return hosts.any_process(self.reason is not None)

    def __call__(self, moment: StepInfo) -> bool:
        if not self.has(moment.step):
            return False
        if self.reason:
            self.log.text(moment.step, "stop", [{"reason": self.reason}])
        return self.over()


class Evaluate:
    """The metrics of the held-out data, every `every` steps (0: only by `now`) and at the end.

    `stop` is asked before every batch: a run that was told to stop must save, not evaluate. It is
    then `cut`, as are the other hooks that take long.
    """

    def __init__(
        self,
        evaluations: Evaluations,
        evaluate: Callable[..., dict[str, Mean]],
        batches: Callable[[], Iterator[tuple[MicroBatches, ...]]],
        *,
        every: int,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.evaluations, self.evaluate, self.batches = evaluations, evaluate, batches
        self.every, self.stop, self.cut = every, stop, False

    def __call__(self, moment: StepInfo) -> None:
        if due(self.every, moment.step, moment.last):
            self.now(moment.step, moment.state, moment.frozen)

    def now(self, step: int, state: TrainState, frozen: Frozen) -> None:
        """Evaluate a state and record it; nothing when told to stop."""
        found, self.cut = [], False
        frozen = with_reference(frozen, state)
        with _aside(self.evaluations.log, "evaluating", state):
            for data in self.batches():
                if self.stop():
                    self.cut = True
                    return
                found.append(self.evaluate(state.params, frozen, state.carry, data))
            found = jax.device_get(found)
        total = jax.tree.map(lambda *parts: np.sum(parts, dtype=float), *found)
        means = {name: float(mean.shown) for name, mean in total.items()}
        self.evaluations.add(step, with_margin(means))


class Generations:
    """Continuations of the same held-out prompts, before, during (`every`) and after training."""

    def __init__(
        self,
        log: RunLog,
        generate: Callable[[TrainState, Frozen], list[dict[str, str]]],
        score: Callable[[list[str]], list[float]] | None,
        *,
        every: int,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.log, self.generate, self.score, self.every = log, generate, score, every
        self.stop, self.cut = stop, False

    def __call__(self, moment: StepInfo) -> None:
        if due(self.every, moment.step, moment.last):
            self.now(moment.step, moment.state, moment.frozen)

    def now(self, step: int, state: TrainState, frozen: Frozen) -> None:
        """Sample from a state and record the texts; nothing when told to stop."""
        self.cut = self.stop()
        if self.cut:
            return
        with _aside(self.log, "sampling continuations", state):
            rows = self.generate(state, frozen)
        self.log.text(step, "generations", rows)
        if self.score:
            scores = self.score([row["continuation"] for row in rows])
            self.log.write(step, {"sentiment": float(np.mean(scores))}, "sentiment")


class Answers:
    """Rewards of the policy's responses to the held-out prompts, every `every` steps (0: only by
    `now`) and at the end. The same random numbers every time.
    """

    def __init__(
        self,
        evaluations: Evaluations,
        answer: Callable[[TrainState, Frozen], dict[str, float] | None],
        *,
        every: int,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.evaluations, self.answer, self.every = evaluations, answer, every
        self.stop, self.cut = stop, False

    def __call__(self, moment: StepInfo) -> None:
        if due(self.every, moment.step, moment.last):
            self.now(moment.step, moment.state, moment.frozen)

    def now(self, step: int, state: TrainState, frozen: Frozen) -> None:
        """Answer, judge and record; nothing when told to stop."""
        self.cut = self.stop()
        if self.cut:
            return
        with _aside(self.evaluations.log, "answering the held-out prompts", state):
            metrics = self.answer(state, with_reference(frozen, state))
        if metrics is None:
            self.cut = True
        else:
            self.evaluations.add(step, metrics)


class Save:
    """Checkpoints every `every` steps, at the end, where a step `is_best`, and again after one that
    failed.

    `save` is told the step, the state, and whether it is the best. On SIGTERM, saves and stops;
    at the last step where something was `cut`, which the next life makes up for.
    """

    def __init__(
        self,
        save: Callable[[int, TrainState, bool], None],
        checkpoints: Checkpointer,
        preemption: Preemption,
        *,
        every: int,
        is_best: Callable[[int], bool] = lambda step: False,
        cut: Callable[[], bool] = lambda: False,
    ):
        self.save, self.checkpoints, self.preemption = save, checkpoints, preemption
        self.every, self.is_best, self.cut = every, is_best, cut

    def __call__(self, moment: StepInfo) -> None:
        preempted = self.preemption.reached(moment.step)
        best = self.is_best(moment.step)
        timely = due(self.every, moment.step, moment.last)
        if preempted or timely or best or self.checkpoints.needs_retry():
            self.save(moment.step, moment.state, best)
        if preempted and (self.cut() or not moment.last):
            self.checkpoints.wait()
            raise StopTraining(f"preempted: step {moment.step} is saved", ExitCode.PREEMPTED)
