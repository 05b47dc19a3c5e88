"""Run the benchmarks; each yields rows of figures by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jalign.bench import head, measure, online, rollouts, workloads
from jalign.bench.options import HeadBench, RlBench, SampleBench, StepBench
from jalign.options import RunOptions

Figures = dict[str, Any]


def step_work(bench: StepBench, run: RunOptions | None = None) -> workloads.Work:
    """The workload of a run's step, or of a random model's."""
    if run is not None and run.algorithm.experience:
        if not bench.random:
            raise ValueError(
                "bench step measures an online algorithm on random weights and prompts: --random"
            )
        return online.config_online_step(run)
    if run is not None:
        return workloads.config_step(run, random=bench.random)
    return workloads.random_step(
        bench.algorithm,
        _lengths(bench),
        pairs=bench.pairs,
        layout=bench.layout,
        reference=bench.reference,
        lora=bench.lora,
        group_by_length=bench.group_by_length,
        max_tokens=bench.max_tokens,
    )


def step(bench: StepBench, run: RunOptions | None = None) -> Iterator[Figures]:
    """Measure seconds, tokens per second and memory of an optimizer step."""
    yield measure.report(step_work(bench, run), warmup=bench.warmup, count=bench.steps)


def step_in_turns(work: workloads.Work, warmup: int) -> None:
    """Print `ready`, then for every line on stdin one step: wall seconds, CPU-seconds, loss.

    Two processes that take turns share the machine's noise, so their ratio is exact to 1 or 2 %
    where their absolute times are not.
    """
    steps = measure.steps(work)
    for _ in range(warmup):
        next(steps)
    # flushed: the process at the other end waits for each line
    print(f"ready {json.dumps(measure.memory(work))}", flush=True)
    for _ in sys.stdin:
        step = next(steps)
        print(step.wall_s, step.cpu_s, step.loss, flush=True)


def _lengths(bench: StepBench) -> np.ndarray:
    """[examples, 3] tokens of prompt, chosen and rejected response."""
    if bench.lengths is None:
        n = bench.len - bench.prompt
        # enough examples for several batches: with one, order and packing would cost nothing
        return np.tile([[bench.prompt, n, n]], (max(64, 4 * bench.pairs), 1))
    with np.load(bench.lengths) as arrays:
        rows = np.stack([arrays["P"], arrays["C"], arrays["R"]], 1)
    # left out, not cut: cutting would pile lengths up at the limit
    return rows[rows[:, 0] + rows[:, 1:].max(1) <= bench.max_len]


def _head(bench: HeadBench) -> Iterator[Figures]:
    yield from head.compare(bench.tokens, bench.width, bench.vocabulary, bench.repeats)


def _sample(bench: SampleBench) -> Iterator[Figures]:
    config = rollouts.sampled_config(bench.model, bench.vocabulary)
    calls = rollouts.sampler(
        config,
        rows=bench.rows,
        prompt=bench.prompt,
        new=bench.new,
        mixed=bench.mixed,
        temperature=bench.temperature,
    )
    rates = rollouts.in_turns(calls, bench.repeats)
    figures: Figures = {"rows": bench.rows} | rates
    if not bench.mixed:
        figures |= rollouts.decode_utilization(
            config, bench.rows, bench.prompt, bench.new, rates["together_tokens_per_second"]
        )
    yield figures | measure.device_peak()


def _rl(bench: RlBench) -> Iterator[Figures]:
    work = online.online_step(
        bench.algorithm,
        prompts=bench.prompts,
        responses=bench.responses,
        prompt=bench.prompt,
        new=bench.new,
    )
    yield measure.report(work, warmup=bench.warmup, count=bench.steps)


BENCHES: dict[str, tuple[type, Callable[..., Iterator[Figures]]]] = {
    "step": (StepBench, step),
    "head": (HeadBench, _head),
    "sample": (SampleBench, _sample),
    "rl": (RlBench, _rl),
}
"""Name -> (options, benchmark function)."""
