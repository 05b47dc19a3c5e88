"""Measure wall seconds, CPU-seconds, tokens per second and memory of a step."""

import resource
import statistics
import time
from collections.abc import Iterator

import jax

from jalign.bench.workloads import Work
from jalign.kernels.devices import known
from jalign.train.source import Offline


def steps(work: Work) -> Iterator[tuple[float, float, int, float]]:
    """Repeat the step without end; yield (wall seconds, CPU-seconds of the process, tokens, loss),
    including the time for the data.
    """
    state = work.state
    while True:
        before = work.source.tokens
        wall, cpu = time.perf_counter(), time.process_time()
        with jax.set_mesh(work.mesh):  # entered per step: a suspended generator must not hold it
            state, metrics = work.step(state, work.frozen, work.source(state, work.frozen))
        loss = float(metrics["loss"])  # waits for the step
        yield (
            time.perf_counter() - wall,
            time.process_time() - cpu,
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


def report(work: Work, *, warmup: int, count: int) -> dict[str, str | float]:
    """Medians over `count` steps after `warmup`."""
    # before the first step, which donates the state
    facts = memory(work)
    rows = []
    for i, row in enumerate(steps(work)):
        if i >= warmup:
            rows.append(row)
        if len(rows) == count:
            break
    wall, cpu, tokens, _ = zip(*rows, strict=True)
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
        "tokens_per_second": round(sum(tokens) / sum(wall), 1),
        **facts,
        # Linux counts in KiB
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }
