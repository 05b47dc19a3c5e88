"""Seconds of a program on a TPU that is not here, from the cycles that its compiler estimates.

XLA:TPU notes `estimated_cycles` of most operations in the text of a program compiled at full
effort. Their sum over the loops, divided by the clock, is the time if nothing overlapped. Not in
it: Mosaic kernels (splash attention), collectives, asynchronous copies.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from jalign.plan.hlo import Computation, Module, Operation

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_PRODUCTS = ("dot", "convolution")
_UNCOUNTED = ("custom-call",)


class Cost(NamedTuple):
    """Operations of one kind at one line of jalign.

    Attributes:
      kind: product (matrix product), copy (between layouts), or the opcode.
      line: file:line within jalign, or the name of the operation where none is known.
    """

    kind: str
    line: str
    cycles: float


@dataclass(frozen=True)
class Cycles:
    """What a program takes.

    Attributes:
      costs: most cycles first.
      kernels: calls of kernels whose cycles the compiler does not know.
    """

    costs: list[Cost]
    kernels: float

    @property
    def total(self) -> float:
        return sum(cost.cycles for cost in self.costs)

    def share(self, kind: str) -> float:
        """Share of the cycles of a kind."""
        return sum(p.cycles for p in self.costs if p.kind == kind) / (self.total or 1.0)


def cycles(text: str, unknown_trips: float = 1) -> Cycles:
    """The cycles of a program.

    Args:
      text: `compiled.as_text()`.
      unknown_trips: iterations of loops whose trip count the compiler does not know.
    """
    module = Module.of(text)
    sums: dict[tuple[str, str], float] = defaultdict(float)
    kernels = 0.0

    def visit(name: str, times: float) -> None:
        nonlocal kernels
        computation = module.computations.get(name)
        for operation in computation.operations.values() if computation else ():
            if estimate := _CYCLES.search(operation.rest):
                place = module.place(operation, "jalign/") or re.sub(r"[.\d]+$", "", operation.name)
                sums[_kind(module, operation), place] += times * float(estimate[1])
            elif operation.opcode in _UNCOUNTED and "tpu_custom_call" in operation.rest:
                kernels += times
            # what a fusion does is in the estimate of the fusion
            if operation.opcode in ("while", "call", "conditional") and computation:
                known = module.trips(operation, computation) if operation.opcode == "while" else 1
                for other in operation.called:
                    visit(other, times * (unknown_trips if known is None else known))

    visit(module.entry, 1)
    costs = [Cost(kind, line, total) for (kind, line), total in sums.items()]
    return Cycles(sorted(costs, key=lambda cost: -cost.cycles), kernels)


def _kind(module: Module, operation: Operation) -> str:
    if operation.opcode in _PRODUCTS:
        return "product"
    if operation.opcode != "fusion":
        return operation.opcode
    inner = [module.computations.get(name, Computation()) for name in operation.called]
    opcodes = {o.opcode for computation in inner for o in computation.operations.values()}
    if opcodes & set(_PRODUCTS):
        return "product"
    # a fusion of nothing but a change of layout
    rest = opcodes - {"parameter", "bitcast", "copy", "transpose", "reshape", "tuple"}
    return "copy" if not rest and "copy" in opcodes else "fusion"
