"""Count collectives in the HLO text of a compiled program."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {
    "pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16,
    "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64,
}  # fmt: skip

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{\s*$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*?) ([a-z][\w\-]*)\((.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:body|to_apply|calls|branch_computations)=(\{[^}]*\}|%?[\w.\-]+)")
_CONDITION = re.compile(r"\bcondition=%?([\w.\-]+)")
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONSTANT = re.compile(r"^\s+%?([\w.\-]+) = s\d+\[\]\S* constant\((\d+)\)")
_UNTIL = re.compile(r"^\s+ROOT .* compare\(%?[\w.\-]+, %?([\w.\-]+)\), direction=LT")


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
    computations, ends = _computations(text)
    counts: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)

    def visit(name: str, times: float) -> None:
        for kind, size, called, trips in computations.get(name, ()):
            if kind:
                counts[kind] += times
                sizes[kind] += times * size
            within = ends.get(trips, unknown_trips) if isinstance(trips, str) else trips
            for other in called:
                visit(other, times * within)

    entry = re.search(r"^ENTRY %?([\w.\-]+) ", text, re.MULTILINE)
    if entry:
        visit(entry[1], 1)
    return {kind: Traffic(counts[kind], sizes[kind]) for kind in KINDS if counts[kind]}


_Operation = tuple[str | None, float, list[str], float | str]


def _computations(text: str) -> tuple[dict[str, list[_Operation]], dict[str, float]]:
    """Relevant operations by computation, as (collective or None, bytes of its result, computations
    it calls, trip count or name of the loop's condition); and the constants that conditions compare
    with.
    """
    computations: dict[str, list[_Operation]] = {}
    ends: dict[str, float] = {}
    current: list[_Operation] = []
    constants: dict[str, float] = {}
    inside = ""
    for line in text.splitlines():
        if line and not line[0].isspace():
            if start := _COMPUTATION.match(line):
                inside, constants = start[1], {}
                current = computations.setdefault(inside, [])
            continue
        if constant := _CONSTANT.match(line):
            constants[constant[1]] = float(constant[2])
        if (until := _UNTIL.match(line)) and until[1] in constants:
            ends[inside] = constants[until[1]]
        operation = _OPERATION.match(line)
        if not operation:
            continue
        shape, name, rest = operation.groups()
        # an asynchronous collective is a start and a done: the start alone counts
        kind = next((k for k in KINDS if name in (k, f"{k}-start")), None)
        called = [
            other.strip().lstrip("%")
            for names in _CALLED.findall(rest)
            for other in names.strip("{}").split(",")
        ]
        if kind is None and not called:
            continue
        trips: float | str = 1
        if name == "while":
            # XLA notes the trip count of a scan; for others the constant of the condition is read
            condition, known = _CONDITION.search(rest), _KNOWN.search(rest)
            trips = float(known[1]) if known else condition[1] if condition else ""
        current.append((kind, _result_bytes(shape, name), called, trips))
    return computations, ends


def _result_bytes(shape: str, name: str) -> float:
    """Bytes of a result. The tuple of an asynchronous start also holds the operands; the result is
    the larger part.
    """
    sizes = [_bytes(kind, axes) for kind, axes in _SHAPE.findall(shape) if kind in _BITS]
    if name.endswith("-start") and len(sizes) > 1:
        return max(sizes)
    return sum(sizes)


def _bytes(kind: str, axes: str) -> float:
    size = 1
    for axis in filter(None, axes.split(",")):
        size *= int(axis)
    return size * _BITS[kind] / 8
