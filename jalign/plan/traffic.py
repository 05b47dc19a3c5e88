"""Count collectives in the HLO text of a compiled program."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from jalign.plan.hlo import Module, Operation
from jalign.plan.shapes import shapes

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

FUSED = "async-collective"
"""Name of the fusions in which a v6e starts and ends a collective of several steps."""
PRODUCTS = {"dot", "convolution"}


class Traffic(NamedTuple):
    """Calls of one kind of collective, and the bytes of their results on one device."""

    count: float  # pyright: ignore[reportIncompatibleMethodOverride]  # no tuple.count
    bytes: float


def traffic(text: str, unknown_trips: float = 1) -> dict[str, Traffic]:
    """Collectives by kind, multiplied by the trip counts of the loops around them.

    Args:
      text: `compiled.as_text()`.
      unknown_trips: iterations of loops whose trip count the compiler does not know.
    """
    module = Module.of(text)
    counts: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)

    def visit(name: str, times: float) -> None:
        computation = module.computations.get(name)
        for operation in computation.operations.values() if computation else ():
            # an asynchronous collective is a start and a done: the start alone counts
            kind = next((k for k in KINDS if operation.opcode in (k, f"{k}-start")), None)
            if kind:
                counts[kind] += times
                sizes[kind] += times * _result_bytes(operation.shape, operation.opcode)
            within: float = 1
            if operation.opcode == "while" and computation:
                known = module.trips(operation, computation)
                within = unknown_trips if known is None else known
            for other in () if passes_on(module, operation) else operation.called:
                visit(other, times * within)

    visit(module.entry, 1)
    return {kind: Traffic(counts[kind], sizes[kind]) for kind in KINDS if counts[kind]}


def passes_on(module: Module, operation: Operation) -> bool:
    """Whether a fusion repeats a collective that another one has started (`FUSED`): it ends it, or
    computes a product while it runs.
    """
    if operation.opcode != "fusion":
        return False
    bodies = [module.computations[name] for name in operation.called]
    inside = {o.opcode for body in bodies for o in body.operations.values()}
    return operation.name.startswith(f"{FUSED}-done") or bool(inside & PRODUCTS)


def _result_bytes(shape: str, name: str) -> float:
    """Bytes of a result. The tuple of an asynchronous start also holds the operands; the result is
    the larger part.
    """
    sizes = [x.bytes for x in shapes(shape)]
    if name.endswith("-start") and len(sizes) > 1:
        return max(sizes)
    return sum(sizes)
