"""Seconds of a program on a TPU that is not here, from its schedule.

XLA:TPU writes the program in the order in which it runs, and `estimated_cycles` beside most
operations (at full effort). An operation takes its cycles over the clock; a Mosaic kernel the time
of its products; one without an estimate the time of its bytes. A collective or a copy that has a
start and a done runs in between, one after the other on its links: what has not ended at the done
is exposed. The sum along the schedule, loops as often as they run, is the time of the program.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from jalign.kernels.devices import Accelerator
from jalign.models.experts.exchange import USED
from jalign.plan.arithmetic import flops, kernel_flops
from jalign.plan.grouped_kernels import Grouped
from jalign.plan.hlo import Computation, Module, Operation
from jalign.plan.links import PAIRS, Links
from jalign.plan.memory_traffic import kernel_bytes, moved_bytes
from jalign.plan.shapes import HOST, shapes
from jalign.plan.timeline import Timeline
from jalign.plan.traffic import FUSED, KINDS, PRODUCTS, passes_on

_CYCLES = re.compile(r'"estimated_cycles":\s*"(\d+)"')
_FREE = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id",
    "replica-id", "opt-barrier", "add-dependency", "domain", "iota",
}  # fmt: skip
_WRAPPERS = {"fusion", "async-start", "call-start"}  # the latter on the sparse cores
_LAYOUT = {"parameter", "bitcast", "copy", "transpose", "reshape", "tuple"}
_USED = re.compile(rf"{USED}(\d+)")
MATRIX_UNIT = {"TPU v6 lite": 256, "TPU7x": 256}
"""Rows and columns of a matrix unit; 128 in the other generations."""
KERNEL = 0.8
"""Share of the matrix units' rate that splash attention reaches on heads as wide as they are: 0.75
forward and 0.83 backward, measured on a v6e (`jalign/plan/README.md`)."""


@dataclass
class Scheduler:
    """Follows the schedule of a program.

    Attributes:
      unknown_trips: iterations of loops whose trip count the compiler does not know.
    """

    module: Module
    accelerator: Accelerator
    links: Links
    unknown_trips: float = 1.0
    _parts: dict[str, Timeline] = field(default_factory=dict)

    def run(self, name: str) -> Timeline:
        """The timeline of one run of a computation."""
        if name not in self._parts:
            self._parts[name] = self._follow(self.module.computations.get(name, Computation()))
        return self._parts[name]

    def _follow(self, computation: Computation) -> Timeline:
        timeline, now = Timeline(), 0.0
        free: dict[str, float] = defaultdict(float)  # when a resource is free again
        ends: dict[str, tuple[float, str]] = {}  # started operation -> when it ends, its kind
        for operation in computation.operations.values():
            if _starts(operation):
                resource, kind, seconds = self._transfer(operation, computation)
                free[resource] = max(now, free[resource]) + seconds
                ends[operation.name] = free[resource], kind
                timeline.links += seconds * (kind == "collective")
            elif operation.opcode.endswith("-done") or operation.name.startswith(f"{FUSED}-done"):
                end, kind = ends.pop(_started(operation, computation), (now, "transfer"))
                timeline.add(kind, self._line(operation), max(0.0, end - now))
                now = max(now, end)
            else:
                before = timeline.seconds
                self._add(timeline, operation, computation)
                now += timeline.seconds - before
        for name, (end, kind) in ends.items():  # what the next iteration waits for
            timeline.add(kind, _numberless(name), max(0.0, end - now))
            now = max(now, end)
        return timeline

    def _add(self, timeline: Timeline, operation: Operation, computation: Computation) -> None:
        """Add an operation that runs by itself."""
        opcode, line = operation.opcode, self._line(operation)
        if opcode == "while":
            trips = self.module.trips(operation, computation)
            for body in operation.called:
                timeline.include(self.run(body), self.unknown_trips if trips is None else trips)
        elif opcode == "conditional":
            branches = [self.run(name) for name in operation.called]
            timeline.include(max(branches, key=lambda t: t.seconds), 1)
        elif opcode == "call":
            timeline.include(self.run(operation.called[0]), 1)
        elif collective := self.collective(operation):
            seconds = self.links.seconds(*collective)
            timeline.links += seconds
            timeline.add("collective", line, seconds)
        elif opcode == "custom-call":
            self._add_kernel(timeline, operation, computation, line)
        elif opcode not in _FREE:
            work = self._seconds(operation, computation)
            timeline.estimated += work[0] if _CYCLES.search(operation.rest) else 0.0
            timeline.add(self.kind(operation), line, *work)

    def _seconds(self, operation: Operation, computation: Computation) -> tuple[float, ...]:
        """Seconds, and those of its arithmetic and of its bytes alone."""
        a = self.accelerator
        arithmetic = flops(self.module, operation, computation) / a.flops
        memory = moved_bytes(self.module, operation, computation) / a.bandwidth
        if cycles := _CYCLES.search(operation.rest):
            return float(cycles[1]) / (a.clock or 1.0), arithmetic, memory
        return max(arithmetic, memory), arithmetic, memory

    def _add_kernel(
        self, timeline: Timeline, operation: Operation, computation: Computation, line: str
    ) -> None:
        if "tpu_custom_call" not in operation.rest:
            return  # names of buffers, which take no time
        known = kernel_flops(operation)
        if known is None:
            timeline.unknown += 1
            return
        amount, head = known
        moved, share = kernel_bytes(self.module, operation, computation), _share_of_rows(operation)
        if grouped := Grouped.of(operation):
            amount, moved = grouped.flops(amount, share), grouped.bytes_moved(moved, share)
        else:
            amount, moved = amount * share, moved * share
        peak = amount / self.accelerator.flops
        width = MATRIX_UNIT.get(self.accelerator.kind, 128)
        fill = min(1.0, head / width) if head else 1.0
        memory = moved / self.accelerator.bandwidth
        timeline.add("kernel", line, max(peak / (fill * KERNEL), memory), peak, memory)

    def _transfer(self, operation: Operation, computation: Computation) -> tuple[str, str, float]:
        """The resource that an asynchronous operation occupies, its kind and its seconds."""
        if collective := self.collective(operation):
            # permutes in opposite directions do not share links
            pairs = PAIRS.search(operation.rest)
            return pairs[0] if pairs else "links", "collective", self.links.seconds(*collective)
        arrays = shapes(operation.shape)
        if operation.opcode in ("copy-start", "slice-start") and len(arrays) > 1:
            # a copy's (target, source, context), a slice's (source, target, context)
            size = min(arrays[0].stored, arrays[1].stored)
            if HOST in (arrays[0].space, arrays[1].space):
                return "host", "transfer", size / self.links.rates.host
            return "memory", "transfer", size / self.accelerator.bandwidth
        # a computation of the sparse cores, whose loops have no estimates
        size = moved_bytes(self.module, operation, computation)
        return "sparse cores", "transfer", size / self.accelerator.bandwidth

    def collective(self, operation: Operation) -> tuple[str, float, str] | None:
        """Kind, bytes of the result and attributes; None if it is none."""
        inner = self._inner(operation) if operation.opcode in _WRAPPERS else []
        if passes_on(self.module, operation):
            return None
        for o in (operation, *inner):
            kind = next((k for k in KINDS if o.opcode in (k, f"{k}-start")), None)
            if kind is None:
                continue
            sizes = [x.bytes for x in shapes(o.shape)]
            size = max(sizes, default=0.0) if o.opcode.endswith("-start") else sum(sizes)
            # XLA:TPU fuses a reduce-scatter as an all-reduce of which each device keeps a slice
            if kind == "all-reduce" and any(x.opcode == "dynamic-slice" for x in inner):
                kept = sum(x.bytes for x in shapes(operation.shape))
                return "reduce-scatter", kept, o.rest
            return kind, size, o.rest
        return None

    def kind(self, operation: Operation) -> str:
        """product, copy, or the opcode."""
        if operation.opcode in PRODUCTS:
            return "product"
        if operation.opcode in ("reshape", "transpose"):
            return "copy"
        if operation.opcode != "fusion":
            return operation.opcode
        opcodes = self._opcodes(operation)
        if opcodes & PRODUCTS:
            return "product"
        # a fusion of nothing but a change of layout
        return "copy" if "copy" in opcodes and not opcodes - _LAYOUT else "fusion"

    def _opcodes(self, operation: Operation) -> set[str]:
        inner = self._inner(operation)
        return {o.opcode for o in inner}.union(*(self._opcodes(o) for o in inner if o.called))

    def _inner(self, operation: Operation) -> list[Operation]:
        """The operations of the computations that it calls."""
        bodies = [self.module.computations.get(name, Computation()) for name in operation.called]
        return [o for body in bodies for o in body.operations.values()]

    def _line(self, operation: Operation) -> str:
        return self.module.place(operation, "jalign/") or _numberless(operation.name)


def timeline(
    text: str, accelerator: Accelerator, links: Links | None = None, unknown_trips: float = 1
) -> Timeline:
    """The timeline of a program.

    Args:
      text: `compiled.as_text()`.
      links: of the mesh that it was compiled for.
      unknown_trips: iterations of loops whose trip count the compiler does not know.
    """
    module = Module.of(text)
    links = links or Links.of(accelerator)
    return Scheduler(module, accelerator, links, unknown_trips).run(module.entry)


def _share_of_rows(operation: Operation) -> float:
    """The share of its buffer that a kernel of experts uses: rows of other devices' experts are
    skipped.
    """
    devices = _USED.search(operation.rest)
    return 1 / int(devices[1]) if devices else 1.0


def _started(operation: Operation, computation: Computation) -> str:
    """The start that a done waits for."""
    name = operation.operands[0] if operation.operands else ""
    source = computation.operations.get(name)
    while source and not _starts(source) and source.operands:
        source = computation.operations.get(source.operands[0])
    return source.name if source else ""


def _starts(operation: Operation) -> bool:
    return operation.opcode.endswith("-start") or operation.name.startswith(f"{FUSED}-start")


def _numberless(name: str) -> str:
    return re.sub(r"[.\d]+$", "", name)
