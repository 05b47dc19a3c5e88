"""What the seconds of a program are spent on: one cost per kind of operation and line of jalign."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Cost(NamedTuple):
    """Operations of one kind at one line.

    Attributes:
      kind: product (matrix product), copy (between layouts), kernel (Mosaic), collective, transfer
        (asynchronous copy), or the opcode.
      line: file:line within jalign, or the name of the operation where none is known.
      seconds: on the critical path.
      arithmetic, memory: seconds of its products at the peak rate, of its bytes at full bandwidth.
    """

    kind: str
    line: str
    seconds: float
    arithmetic: float = 0.0
    memory: float = 0.0

    @property
    def bound(self) -> str:
        """What limits it: links, or arithmetic or memory with the share of its peak, or neither of
        them: vector units, changes of layout, latency.
        """
        if self.kind == "collective":
            return "links"
        if self.kind == "transfer":
            return "memory"
        name, best = max(("arithmetic", self.arithmetic), ("memory", self.memory), key=_second)
        share = min(1.0, best / self.seconds) if self.seconds else 0.0
        either = self.kind == "kernel" or share >= 0.4
        return f"{name} {share:.0%}" if either else f"neither ({name} {share:.0%})"


@dataclass
class Timeline:
    """What a program takes.

    Attributes:
      sums: (kind, line) -> seconds, arithmetic, memory, as in `Cost`.
      links: seconds that collectives occupy links, hidden or exposed.
      estimated: seconds of operations whose cycles the compiler notes.
      unknown: calls of kernels about which nothing is known.
    """

    sums: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    links: float = 0.0
    estimated: float = 0.0
    unknown: float = 0.0

    @property
    def costs(self) -> list[Cost]:
        """Most expensive first."""
        costs = [Cost(*key, *values) for key, values in self.sums.items() if values[0]]
        return sorted(costs, key=lambda cost: -cost.seconds)

    @property
    def seconds(self) -> float:
        return sum(values[0] for values in self.sums.values())

    def of(self, kind: str) -> float:
        """Seconds of a kind."""
        return sum(values[0] for (k, _), values in self.sums.items() if k == kind)

    def share(self, kind: str) -> float:
        """Share of the seconds of a kind."""
        return self.of(kind) / (self.seconds or 1.0)

    def add(self, kind: str, line: str, *values: float) -> None:
        sums = self.sums.setdefault((kind, line), [0.0, 0.0, 0.0])
        for i, value in enumerate(values):
            sums[i] += value

    def include(self, other: Timeline, times: float) -> None:
        """Add a part that runs `times` times."""
        for key, values in other.sums.items():
            self.add(*key, *(times * value for value in values))
        self.links += times * other.links
        self.estimated += times * other.estimated
        self.unknown += times * other.unknown


def _second(pair: tuple[str, float]) -> float:
    return pair[1]
