"""Measure wall seconds, CPU-seconds, tokens per second and memory of a step."""

import resource
import statistics
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax

from jalign.bench.workloads import Work
from jalign.kernels.devices import known
from jalign.train.source import Offline


class Step(NamedTuple):
    """What one step took.

    Attributes:
      wall_s, cpu_s: seconds and CPU-seconds of the process, including those for the data.
      data_s: seconds until the data were there: packing, or a whole rollout.
      tokens: of the examples.
      loss: of the batch.
    """

    wall_s: float
    cpu_s: float
    data_s: float
    tokens: int
    loss: float


def steps(work: Work) -> Iterator[Step]:
    """Repeat the step without end."""
    state = work.state
    while True:
        before = work.source.tokens
        wall, cpu = time.perf_counter(), time.process_time()
        with jax.set_mesh(work.mesh):  # entered per step: a suspended generator must not hold it
            data = work.source(state, work.frozen)
            begun = time.perf_counter()
            state, metrics = work.step(state, work.frozen, data)
        loss = float(metrics["loss"])  # waits for the step
        yield Step(
            time.perf_counter() - wall,
            time.process_time() - cpu,
            begun - wall,
            work.source.tokens - before,
            loss,
        )


def memory(work: Work) -> dict[str, float]:
    """The compiler's memory analysis of one step in MiB, and the seconds of tracing and compiling.

    {} for an online workload, which runs several programs.
    """
    if not isinstance(work.source, Offline):
        return {}
    data = work.source.on_device(work.source.batches.batch(0))
    begin = time.perf_counter()
    with jax.set_mesh(work.mesh):
        # a second compilation: a jitted function does not hand out its program
        lowered = work.step.lower(work.state, work.frozen, data)
    traced = time.perf_counter()
    analysis = lowered.compile().memory_analysis()
    return {
        "trace_s": round(traced - begin, 2),
        "compile_s": round(time.perf_counter() - traced, 2),
        "temporary_mib": round(analysis.temp_size_in_bytes / 2**20, 1),
        "arguments_mib": round(analysis.argument_size_in_bytes / 2**20, 1),
    }


def utilization(flops: float, seconds: float) -> dict[str, float]:
    """TFLOP per step, and model FLOPs utilization (MFU) if the devices' peak is known."""
    figures = {"tflop": round(flops / 1e12, 4)}
    if device := known(jax.devices()[0].device_kind):
        figures["mfu"] = round(flops / seconds / (device.flops * jax.device_count()), 4)
    return figures


def device_peak() -> dict[str, float]:
    """The most memory that this process has taken on its device so far; {} on a CPU, where nothing
    counts it.
    """
    peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {"device_peak_mib": round(peak / 2**20, 1)} if peak else {}


def report(work: Work, *, warmup: int, count: int) -> dict[str, str | float]:
    """Medians over `count` steps after `warmup`."""
    # before the first step, which donates the state
    facts = memory(work)
    # the peak of the steps is known only if it is higher than what loading took
    facts |= {f"loading_{name}": mib for name, mib in device_peak().items()}
    rows: list[Step] = []
    for i, row in enumerate(steps(work)):
        if i >= warmup:
            rows.append(row)
        if len(rows) == count:
            break
    wall, cpu, data, tokens, _ = zip(*rows, strict=True)
    if work.flops:
        facts = facts | utilization(work.flops, statistics.median(wall))
    return {
        "name": work.name,
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "steps": count,
        # the median: a mean counts every hiccup of a shared machine
        "median_s": round(statistics.median(wall), 4),
        "median_cpu_s": round(statistics.median(cpu), 4),
        "mean_s": round(statistics.fmean(wall), 4),
        "mean_cpu_s": round(statistics.fmean(cpu), 4),
        "median_data_s": round(statistics.median(data), 4),
        "tokens_per_second": round(sum(tokens) / sum(wall), 1),
        **facts,
        **device_peak(),
        # Linux counts in KiB
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
