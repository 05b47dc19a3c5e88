"""Seconds of collectives and transfers over the links of a target.

Bandwidths are those of Austin et al. 2025, "How to Scale Your Model", chapter 2. A slice is a mesh
of two (v5e, v6e) or three (v5p, TPU7x) axes; an axis is a ring where it has 16 chips (v5e, v6e) or
a multiple of 4 (v5p, TPU7x).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jalign.kernels.devices import Accelerator

Coordinates = tuple[int, ...]
"""(slice, x, y, z) of a device."""

_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
PAIRS = re.compile(r"source_target_pairs=\{([{}\d,]*)\}")


class Rates(NamedTuple):
    """Bytes per second: of a link in one direction, of a chip's share of the data center network,
    and between a chip and its host. `ring`: an axis of a multiple of so many chips is a ring.
    """

    link: float
    network: float
    host: float
    ring: int


_RATES = {
    "TPU v5 lite": Rates(45e9, 3.125e9, 16e9, 16),
    "TPU v5": Rates(90e9, 6.25e9, 16e9, 4),
    "TPU v6 lite": Rates(90e9, 12.5e9, 32e9, 16),
    "TPU7x": Rates(90e9, 12.5e9, 32e9, 4),
}


@dataclass(frozen=True)
class Links:
    """The links of a target.

    Attributes:
      rates: of the hardware.
      devices: coordinates of the devices of the mesh, by partition.
    """

    rates: Rates
    devices: Sequence[Coordinates] = ()

    @classmethod
    def of(cls, accelerator: Accelerator, devices: Sequence[object] = ()) -> Links:
        """Of a mesh of devices; GPUs of a host are all linked to each other."""
        rates = _RATES.get(accelerator.kind)
        if rates is None:
            return cls(Rates(accelerator.link, accelerator.link, 32e9, 1))
        where = [(getattr(d, "slice_index", 0), *getattr(d, "coords", ())) for d in devices]
        return cls(rates, where)

    def seconds(self, kind: str, size: float, attributes: str) -> float:
        """Seconds of a collective.

        With n devices in a group and W bytes per second into each of them, a result of R bytes
        takes R (n - 1) / n / W (all-gather), R (n - 1) / W (reduce-scatter), twice the former
        (all-reduce), R max(n / 4, (n - 1) / n) / W (all-to-all, on a ring half of the bytes go n /
        4 links far or more), R / link (permute to a neighbor).

        Args:
          kind: one of `traffic.KINDS`.
          size: bytes R of the result on one device.
          attributes: of the operation, with its groups of devices.
        """
        if kind == "collective-permute":
            return size / self._neighbor(attributes)
        group = self._group(attributes)
        n = len(group)
        if n < 2:
            return 0.0
        times = {
            "all-gather": (n - 1) / n,
            "reduce-scatter": n - 1,
            "all-reduce": 2 * (n - 1) / n,
            "all-to-all": max(n / 4, (n - 1) / n),
        }[kind]
        return size * times / self._into(group)

    def _group(self, attributes: str) -> list[int]:
        """The first group: all of them are alike."""
        if listed := _LISTED.search(attributes):
            return [int(x) for x in listed[1].split(",") if x] or list(range(len(self.devices)))
        if iota := _IOTA.search(attributes):
            shape = [int(x) for x in iota[3].split(",")]
            order = [int(x) for x in iota[4].split(",")] if iota[4] else range(len(shape))
            numbered = np.arange(int(np.prod(shape))).reshape(shape).transpose(order)
            return numbered.reshape(int(iota[1]), int(iota[2]))[0].tolist()
        if named := _NAMED.search(attributes):  # as JAX 0.12 writes them: the axes of a group
            axes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
            members = set(re.findall(r"'(\w+)'", named[2]))
            numbered = np.arange(int(np.prod([int(n) for n in axes.values()])))
            numbered = numbered.reshape([int(n) for n in axes.values()])
            within = tuple(slice(None) if name in members else 0 for name in axes)
            return numbered[within].flatten().tolist()
        return list(range(len(self.devices)))

    def _into(self, group: list[int]) -> float:
        """Bytes per second that reach the device of a group with the fewest links."""
        where = self._coordinates(group)
        if not where:
            return self.rates.link
        spans = [len(set(axis)) for axis in zip(*where, strict=True)]
        if spans[0] > 1:
            return self.rates.network
        # a chip at the corner of a mesh has one link along each axis, a chip on a ring two
        links = sum(2 if self._is_ring(axis) else 1 for axis, n in enumerate(spans) if n > 1)
        return self.rates.link * max(links, 1)

    def _is_ring(self, axis: int) -> bool:
        size = len({device[axis] for device in self.devices})
        return size % self.rates.ring == 0 and size > 2

    def _neighbor(self, attributes: str) -> float:
        listed = PAIRS.search(attributes)
        ends = [int(x) for x in re.findall(r"\d+", listed[1])] if listed else []
        pairs = zip(ends[::2], ends[1::2], strict=True)
        slices = [[device[0] for device in self._coordinates([a, b])] for a, b in pairs]
        return self.rates.network if any(len(set(x)) > 1 for x in slices) else self.rates.link

    def _coordinates(self, group: list[int]) -> list[Coordinates]:
        known = len(self.devices)
        return [self.devices[i] for i in group] if group and max(group) < known else []
