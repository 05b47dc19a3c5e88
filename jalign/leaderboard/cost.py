"""What training costs: seconds of the device, and how many models are held."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import jax

from jalign.core import Algorithm


class Stopwatch:
    """Measures which share of its wall-clock time this process computed.

    On a shared CPU wall-clock seconds depend on what else runs. Their product with `share` does
    not: it counts CPU-seconds (more than one per second on several cores). Accelerators are not
    shared: `share` is 1.
    """

    share = 1.0

    def __enter__(self) -> Stopwatch:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        if jax.default_backend() == "cpu":
            wall = max(time.perf_counter() - self._wall, 1e-9)
            self.share = (time.process_time() - self._cpu) / wall


def seconds_per_step(record: Sequence[Mapping[str, Any]]) -> float:
    """Median wall-clock seconds of a training step, by the record of a run with log_every=1; the
    median, since the first steps compile.
    """
    times = [row["step_time"] for row in record if row["kind"] == "train"]
    return float(median(times)) if times else 0.0


def models_held(row: Algorithm, reward_model: bool) -> int:
    """Models in memory while a method trains: policy, reference, critic, reward model."""
    return 1 + row.needs_reference() + row.has_last() + row.needs_critic + reward_model
