"""Compile a program for a target and read its memory and traffic."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from jalign.kernels.devices import known
from jalign.parallel.memory import is_on_host
from jalign.plan.links import Links
from jalign.plan.roofline import roofline
from jalign.plan.schedule import timeline
from jalign.plan.timeline import Timeline
from jalign.plan.traffic import Traffic, traffic

if TYPE_CHECKING:
    from jaxtyping import PyTree

_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# libtpu refuses in two wordings: "Used 34.8G of 15.7G hbm", "(34.8G) exceeds available HBM"
_NEEDED = re.compile(r"Used ([\d.]+)([BKMGT])\w* of ([\d.]+)([BKMGT])\w* (?:hbm|HBM)")
_EFFORT, _LITTLE = "jax_optimization_level", "O0"
_EXCEEDS = re.compile(r"\(([\d.]+)([BKMGT])\w*\) exceeds? available HBM")


class Memory(NamedTuple):
    """Bytes on one device, by the compiler's layout; host memory is not counted.

    Attributes:
      arguments: live before the program runs.
      outputs: of which `aliased` reuse the buffers of arguments.
      temporary: activations, gradients and other intermediate values.
      code: the program itself.
      peak: the largest number of live bytes.
    """

    arguments: float
    outputs: float
    aliased: float
    temporary: float
    code: float
    peak: float


@dataclass(frozen=True)
class Program:
    """One compiled program.

    Attributes:
      name: name for the report.
      memory: None if the compiler refused it for lack of memory.
      needed: bytes it would need, if the compiler refused it.
      collectives: kind -> traffic.
      arguments: arguments of the call, so that arrays shared by two programs count once.
      seconds: compile time.
      timeline: where its seconds go; None at little effort, and for devices without known rates.
    """

    name: str
    memory: Memory | None
    needed: float = 0.0
    collectives: dict[str, Traffic] = field(default_factory=dict)
    arguments: Any = ()
    seconds: float = 0.0
    timeline: Timeline | None = None


@contextmanager
def little_effort() -> Iterator[None]:
    """Compile with little optimization. A TPU's compiler then takes a fifth of the time, and plans
    a few percent more memory than for the final program; its estimates of cycles are ten times
    too high.
    """
    before = getattr(jax.config, _EFFORT)
    jax.config.update(_EFFORT, _LITTLE)
    try:
        yield
    finally:
        jax.config.update(_EFFORT, before)


@contextmanager
def not_cached() -> Iterator[None]:
    """Leave the cache of compiled programs alone: one for an absent device can be written to it but
    not read from it, since there is no client to load it.
    """
    before = jax.config.jax_enable_compilation_cache
    _enable_cache(False)
    try:
        yield
    finally:
        _enable_cache(before)


def _enable_cache(enabled: bool) -> None:
    jax.config.update("jax_enable_compilation_cache", enabled)
    compilation_cache.reset_cache()  # JAX asks only once whether there is one


def compile_program(
    name: str, function: Any, args: tuple, *, trips: float = 1, **keywords: object
) -> Program:
    """Compile a jitted function for the mesh in scope.

    Args:
      args, keywords: shapes with shardings, and static arguments.
      trips: iterations of loops whose trip count the compiler does not know.

    Raises:
      JaxRuntimeError: any compiler error except running out of memory.
    """
    started = time.perf_counter()
    # outside the try: an error of tracing is the run's own, not one of size
    lowered = function.lower(*args, **keywords)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(str(error))
        if needed is None:
            raise
        return Program(name, None, needed, {}, args, time.perf_counter() - started)
    a = compiled.memory_analysis()
    memory = Memory(
        a.argument_size_in_bytes,
        a.output_size_in_bytes,
        a.alias_size_in_bytes,
        a.temp_size_in_bytes,
        a.generated_code_size_in_bytes,
        # libtpu's peak includes buffers in host memory, which take nothing on the device
        a.peak_memory_in_bytes
        - a.host_argument_size_in_bytes
        - (a.host_output_size_in_bytes - a.host_alias_size_in_bytes),
    )
    # cost_analysis counts the body of a loop once, so the text is read instead
    text = compiled.as_text()
    seconds = time.perf_counter() - started
    return Program(name, memory, 0.0, traffic(text, trips), args, seconds, _timeline(text, trips))


def _timeline(text: str, trips: float) -> Timeline | None:
    """Seconds of a program for the mesh in scope; None where the text has no estimates."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty or getattr(jax.config, _EFFORT) == _LITTLE:
        return None
    devices = mesh.devices.flatten().tolist()
    accelerator = known(devices[0].device_kind)
    if accelerator is None:
        return None
    links = Links.of(accelerator, devices)
    if accelerator.platform == "cuda":
        return roofline(text, accelerator, links, trips)
    return timeline(text, accelerator, links, trips) if accelerator.clock else None


def needed_bytes(message: str) -> float | None:
    """Bytes a program would need, from the TPU compiler's error; None for another error."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    # a refusal without a figure is infinite: it fits nowhere
    match = _NEEDED.search(message) or _EXCEEDS.search(message)
    return float(match[1]) * _UNITS[match[2]] if match else float("inf")


def bytes_on_one(tree: PyTree, seen: set[int] | None = None, *, host: bool = False) -> float:
    """Bytes of arrays on one device, or with `host` one device's share of arrays in host memory.

    `seen` holds the ids of arrays that are already counted.
    """
    total = 0.0
    for x in jax.tree.leaves(tree):
        if not hasattr(x, "shape") or (seen is not None and id(x) in seen):
            continue
        if is_on_host(x) != host:
            continue
        if seen is not None:
            seen.add(id(x))
        # the size of one device's shard, not a share of all: replicated arrays count in full
        shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
        size = x.dtype.itemsize
        for axis in shape:
            size *= axis
        total += size
    return total
