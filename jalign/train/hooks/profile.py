"""A trace of a few steps for xprof, and what was in memory when it ran out."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

from jalign.core import TrainState
from jalign.train.loop import StepInfo

LOG = logging.getLogger(__name__)

MEMORY_FILE = "memory.prof"


def parse_steps(text: str) -> range:
    """Steps as a person writes them.

    Args:
      text: one step, or the first and the last of several, counted from 1.

    Raises:
      ValueError: neither, or no step.

    >>> parse_steps("12"), parse_steps("12-14")
    (range(12, 13), range(12, 15))
    """
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise ValueError(f"profile must be a step such as 12, or steps such as 12-14, got {text!r}")
    return range(first, last + 1)


class Profile:
    """A hook that traces some steps with `jax.profiler`.

    The device is waited for before the first and after the last of them, and in no other step.

    Args:
      folder: local folder of the trace; xprof and TensorBoard's profile plugin read it.
      steps: the steps to trace. Those taken already, and steps after the last one, are left out.
    """

    def __init__(self, folder: Path, steps: range):
        self.folder, self.steps, self.tracing = folder, steps, False

    def begin(self, start: int, state: TrainState) -> None:
        """Start the trace if the step after `start` is the first of the session to be traced."""
        if start + 1 in self.steps and not self.tracing:
            jax.block_until_ready(state.params)
            jax.profiler.start_trace(str(self.folder))
            self.tracing = True

    def __call__(self, info: StepInfo) -> None:
        if self.tracing and (info.last or info.step + 1 not in self.steps):
            self.end(info.state)
        elif not info.last:
            self.begin(info.step, info.state)

    def end(self, state: TrainState | None = None) -> None:
        """Write the trace, after the steps of `state` if one is given."""
        if self.tracing:
            self.tracing = False
            if state is not None:
                jax.block_until_ready(state.params)
            jax.profiler.stop_trace()


@contextmanager
def memory_profile_on_failure(folder: Path | None) -> Iterator[None]:
    """When a device runs out of memory, write what is in it (`pprof` reads that), and name the file
    in the error; None writes nothing.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if folder and "RESOURCE_EXHAUSTED" in str(error):
            file = folder / MEMORY_FILE
            try:
                jax.profiler.save_device_memory_profile(str(file))
            except Exception as why:  # the error that matters is the first one
                LOG.error("no memory profile is written: %s", why)
            else:
                error.add_note(
                    f"What is in the devices' memory is in {file} (pprof -top FILE). Smaller "
                    "batches, data.max_tokens, model.remat: full, model.lora, optim.moments: int8 "
                    "or optim.offload: host need less; jalign plan says how much."
                )
        raise
