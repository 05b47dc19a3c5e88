"""What a kernel of products by group (`jalign.kernels.grouped_tpu`) computes and reads.

It is not what it declares: the kernel multiplies a block of rows once for each group that has rows
in it, and reads a matrix once for all blocks of a group, since a Pallas pipeline copies no block
that it holds.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from jalign.plan.hlo import Operation
from jalign.plan.shapes import shapes

_CONSTRAINTS = re.compile(r"operand_layout_constraints=\{(.*?)\}, \w+=")


class Grouped(NamedTuple):
    """Sizes of a grouped product.

    Attributes:
      groups: matrices that it uses.
      blocks: of rows in its buffer.
      matrix_bytes: of one matrix.
    """

    groups: int
    blocks: int
    matrix_bytes: float

    @classmethod
    def of(cls, operation: Operation) -> Grouped | None:
        """The sizes of this kernel; None if it is another kind."""
        if "/jit(gmm)/" not in operation.rest:
            return None
        constraints = _CONSTRAINTS.search(operation.rest)
        arrays = shapes(constraints[1]) if constraints else []
        # [groups + 1] where groups begin, [visits] the group of each visit to a block
        offsets, visits = [x.axes[0] for x in arrays if x.dtype == "s32" and len(x.axes) == 1][:2]
        groups, matrices = offsets - 1, arrays[-1]
        return cls(groups, visits - groups + 1, matrices.stored / matrices.axes[0])

    @property
    def visits(self) -> int:
        """Most visits of a group to a block: a group may begin and end within blocks."""
        return self.blocks + self.groups - 1

    def flops(self, declared: float, share: float) -> float:
        """FLOPs if this share of the rows is used; `declared` counts every row once."""
        return declared * (share + (self.groups - 1) / self.blocks)

    def bytes_moved(self, declared: float, share: float) -> float:
        """Bytes if this share of the rows is used; `declared` counts a matrix for each visit."""
        rows = declared - self.visits * self.matrix_bytes
        return rows * share + self.groups * self.matrix_bytes
