"""Run the stages of a pipeline one after another, resuming where an earlier call stopped."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence

from jalign.pipeline.process import Runner
from jalign.pipeline.records import Records
from jalign.pipeline.stages import Stage
from jalign.train.exit_code import ExitCode


def run_stages(
    stages: Sequence[Stage],
    records: Records,
    runner: Runner,
    say: Callable[[str], object],
    redo: Sequence[str] = (),
) -> int:
    """Run every stage that has not ended yet; returns the exit code of the last one that ran.

    Args:
      redo: names of stages to run again, with all stages that need them.

    Raises:
      ConfigError: a stage that began has another definition now.
    """
    # All checks come before anything is deleted or run.
    again = _dependent(stages, redo)
    for stage in stages:
        if stage not in again:
            records.check(stage)
    for stage in reversed(again):  # backwards: a kill in between leaves no stage without its inputs
        records.forget(stage)
    for number, stage in enumerate(stages, 1):
        heading = f"[{number}/{len(stages)}] {stage.name}"
        if _is_done(stage, records, heading, say):
            continue
        say(f"{heading}: {shlex.join(['jalign', *stage.args])}")
        # On disk before it starts: a killed stage must not resume with another definition.
        records.begin(stage)
        started = time.perf_counter()
        if code := runner.run(stage):
            say(f"{stage.name} ended with exit code {code}: the same command resumes there")
            return code
        records.end(stage, time.perf_counter() - started)
        if runner.stop_requested and number < len(stages):
            say(f"stopped on request after {stage.name}: the same command resumes")
            return int(ExitCode.PREEMPTED)
    say(f"all {len(stages)} stages are done: {stages[-1].out}")
    return 0


def _is_done(stage: Stage, records: Records, heading: str, say: Callable[[str], object]) -> bool:
    if (seconds := records.seconds(stage)) is not None:
        if stage.out.exists():
            say(f"{heading}: done before, in {seconds:.0f} s")
            return True
        say(f"{heading}: done before, but {stage.out} is gone")
    elif records.ended_unseen(stage):
        say(f"{heading}: {stage.out} was written after the pipeline had been killed")
        records.end(stage, 0.0)
        return True
    return False


def _dependent(stages: Sequence[Stage], names: Sequence[str]) -> list[Stage]:
    """Stages of these names, and all that need them."""
    selected = set(names)
    for stage in stages:  # each needs earlier stages only
        if selected & set(stage.needs):
            selected.add(stage.name)
    return [stage for stage in stages if stage.name in selected]
