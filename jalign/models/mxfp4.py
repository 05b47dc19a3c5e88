"""MXFP4 tensors of a checkpoint, decoded slice by slice when they are read (GPT-OSS).

OCP Microscaling Formats v1.0, section 5.2: blocks of 32 entries share a power of two, and every
entry is a 4-bit float (E2M1). GPT-OSS stores a matrix [inputs, outputs] of an expert as
`*_blocks` [experts, outputs, inputs / 32, 16], two entries to a byte with the low bits first, and
`*_scales` [experts, outputs, inputs / 32], exponents with a bias of 127.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

BLOCK, BIAS = 32, 127
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def mxfp4_part(name: str, tensor: Any) -> str | None:
    """blocks | scales, if the tensor is that part of an MXFP4 tensor."""
    if tensor.get_dtype() != "U8":
        return None
    return next((part for part in ("blocks", "scales") if name.endswith(f"_{part}")), None)


class Mxfp4:
    """A tensor [experts, inputs, outputs] with the interface of safetensors' slices.

    Raises:
      ValueError: one part is missing, or their shapes do not fit.
    """

    def __init__(self, name: str, blocks: Any = None, scales: Any = None):
        if blocks is None or scales is None:
            raise ValueError(f"{name} is MXFP4 and needs both {name}_blocks and {name}_scales")
        *shape, size = blocks.get_shape()
        if shape != list(scales.get_shape()) or len(shape) != 3 or size != BLOCK // 2:
            raise ValueError(
                f"{name}: MXFP4 blocks {blocks.get_shape()} do not fit {scales.get_shape()} scales"
            )
        self._blocks, self._scales = blocks, scales
        experts, outputs, count = shape
        self._shape = (experts, count * BLOCK, outputs)

    def get_shape(self) -> tuple[int, ...]:
        return self._shape

    def get_dtype(self) -> str:
        return "BF16"  # which holds every value exactly

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        full = (*index, *[slice(None)] * (3 - len(index)))
        experts, inputs, outputs = (
            slice(*s.indices(n)[:2]) for s, n in zip(full, self._shape, strict=True)
        )
        first = inputs.start // BLOCK
        blocks = slice(first, -(-inputs.stop // BLOCK))
        codes = self._blocks[experts, outputs, blocks]
        exponents = self._scales[experts, outputs, blocks].astype(np.int32) - BIAS
        levels = E2M1[np.stack([codes & 15, codes >> 4], -1)]
        values = np.ldexp(levels.reshape(*codes.shape[:-1], BLOCK), exponents[..., None])
        values = values.reshape(*values.shape[:2], -1).swapaxes(1, 2)
        start = inputs.start - first * BLOCK
        return values[:, start : start + inputs.stop - inputs.start].astype(jnp.dtype(jnp.bfloat16))
