"""Sizes of the arrays in HLO text: axes, layout, tiles and the memory that holds them."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_SHAPE = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")
_TILE = re.compile(r"T\(([\d,]+)\)")
_SPACE = re.compile(r"S\((\d+)\)")
_BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16,
    "bf16": 16, "f16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64,
    "c64": 64, "c128": 128,
}  # fmt: skip
DEVICE, HOST = 0, 5
"""Memory spaces of XLA: the device's main memory, and its host's. Others are on the chip."""


class Shape(NamedTuple):
    """An array.

    Attributes:
      dtype: as XLA spells it.
      axes: sizes.
      order: axes, the fastest first; empty where the text has no layout.
      tile: of the fastest axes, slowest first; their sizes are padded to multiples of it.
      space: memory space: `DEVICE`, `HOST`, or one on the chip.
    """

    dtype: str
    axes: tuple[int, ...]
    order: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    space: int = DEVICE

    @property
    def elements(self) -> int:
        return math.prod(self.axes)

    @property
    def bytes(self) -> float:
        """Bytes of the values."""
        return self.elements * bits(self.dtype) / 8

    @property
    def stored(self) -> float:
        """Bytes in memory, with the padding of tiles."""
        axes = list(self.axes)
        for axis, size in zip(self.order, reversed(self.tile), strict=False):
            axes[axis] = -(-axes[axis] // size) * size
        return math.prod(axes) * bits(self.dtype) / 8


def bits(dtype: str) -> int:
    """Bits of an element; 0 for tokens and other values that take no memory."""
    return 8 if dtype.startswith("f8") else _BITS.get(dtype, 0)


def shapes(text: str) -> list[Shape]:
    """The arrays of a shape in HLO text; of a tuple, its elements in order."""
    return [_shape(*match) for match in _SHAPE.findall(text) if bits(match[0])]


def _shape(dtype: str, axes: str, layout: str) -> Shape:
    tile, space = _TILE.search(layout), _SPACE.search(layout)
    return Shape(
        dtype,
        _integers(axes),
        _integers(layout.partition(":")[0]),
        _integers(tile[1]) if tile else (),
        int(space[1]) if space else DEVICE,
    )


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(x) for x in text.split(",") if x.strip().isdigit())
