"""Benchmark the log-prob head: value and gradient, blocked against naive, interleaved."""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from jalign.models.logprobs import token_logps


def compare(tokens: int, width: int, vocabulary: int, repeats: int) -> list[dict[str, str | float]]:
    """Seconds, CPU-seconds and temporary memory of both heads; ratios are blocked / naive."""
    h, w, y = jax.jit(
        lambda key: (
            jax.random.normal(key, (tokens, width)),
            0.02 * jax.random.normal(key, (width, vocabulary)),
            jax.random.randint(key, (tokens,), 0, vocabulary),
        )
    )(jax.random.key(0))

    def naive(h: jax.Array, w: jax.Array) -> jax.Array:
        logps = jax.nn.log_softmax((h @ w).astype(jnp.float32))
        return jnp.take_along_axis(logps, y[:, None], 1).sum()

    def blocked(h: jax.Array, w: jax.Array) -> jax.Array:
        return token_logps(h, w, y, vocab_axis=1).sum()

    compiled = {
        fn.__name__: jax.jit(jax.value_and_grad(fn, (0, 1))).lower(h, w).compile()
        for fn in (naive, blocked)
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in compiled}
    for i in range(repeats + 1):
        # in turns: other load on the machine meets both
        for name, run in compiled.items():
            wall, cpu = time.perf_counter(), time.process_time()
            # dispatch is asynchronous: without this only the call is timed
            jax.block_until_ready(run(h, w))
            # the first turn fills caches and the allocator
            if i:
                times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    rows = []
    for name, run in compiled.items():
        wall, cpu = zip(*times[name], strict=True)
        rows.append(
            {
                "head": name,
                "median_s": round(statistics.median(wall), 4),
                "median_cpu_s": round(statistics.median(cpu), 4),
                "temporary_mib": round(_temporary_bytes(run) / 2**20, 1),
            }
        )
    # of CPU-seconds, turn by turn: wall seconds grow with whatever else runs
    ratio = [a[1] / b[1] for a, b in zip(times["blocked"], times["naive"], strict=True)]
    rows[1]["cpu_ratio"] = round(statistics.median(ratio), 3)
    rows[1]["memory_ratio"] = round(rows[1]["temporary_mib"] / rows[0]["temporary_mib"], 4)
    return rows


def _temporary_bytes(compiled: Any) -> int:
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this backend does not tell how much memory a program takes")
    return memory.temp_size_in_bytes
