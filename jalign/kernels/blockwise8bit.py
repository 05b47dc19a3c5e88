"""Optimizer moments in 8 bits: block-wise dynamic quantization.

Dettmers et al. 2022, 8-bit Optimizers via Block-wise Quantization, sections 2.1 and 3,
https://arxiv.org/abs/2110.02861. The largest magnitude of a block is its scale; every entry is the
nearest of levels that are denser near 0 (dynamic tree quantization). The linear int8 of
`jalign.kernels.nf4` would round everything below 1/254 of the largest entry to 0, which includes
most second moments.

With n magnitude bits the code c = 2**e + j, 0 <= j < 2**e, is the middle of the j-th of 2**e equal
parts of the decade 10**(e - n) to 10**(e - n + 1); code 0 is 0. int8 codes have a sign and 7 bits
(1 to 5.5e-7 of the largest), uint8 codes are for non-negative arrays and have 8 bits (1 to 5.5e-8).

Deviations: blocks lie along one axis, so that codes have the shape of the array and are sharded as
it is; the paper's are 2048 entries of the flattened array. The top level is the scale itself, where
the paper adds a code for it. Positive entries of uint8 codes are never rounded to 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

BLOCK = 128
LEAST_BLOCK = 16  # with fewer entries to a scale there is little to win
LEAST_ENTRIES = 4096  # as in the paper: smaller arrays stay float32


class Quantized8bit(NamedTuple):
    """An array in 8 bits.

    Attributes:
      codes: int8 or uint8, in the shape of the array.
      scales: float32, one per block along the block axis, otherwise the array's shape.
    """

    codes: Array
    scales: Array


def blocks(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(axis, entries of a block): along whichever of the last two axes allows larger blocks, the
    last in a tie. None for an array too small to quantize.
    """
    if math.prod(shape) < LEAST_ENTRIES:
        return None
    axes = range(max(len(shape) - 2, 0), len(shape))
    block, axis = max((math.gcd(shape[axis], BLOCK), axis) for axis in axes)
    return (axis, block) if block >= LEAST_BLOCK else None


def levels(bits: int) -> np.ndarray:
    """[2**bits] float32 from 0 to 1: the level of each code of `bits` magnitude bits."""
    code = np.arange(1, 2**bits)
    e = np.floor(np.log2(code)).astype(int)
    place = 0.1 + 0.9 * ((code + 0.5) / 2.0**e - 1)
    magnitudes = 10.0 ** (e - bits + 1) * place
    return np.concatenate([[0.0], magnitudes / magnitudes[-1]]).astype(np.float32)


def encode(x: Float[Array, "..."], *, signed: bool) -> Quantized8bit:
    """Quantize an array whose shape has `blocks`."""
    layout = blocks(x.shape)
    if layout is None:
        raise ValueError(f"an array of shape {x.shape} is not coded: see `blocks`")
    axis, block = layout
    bits = 7 if signed else 8
    parts = _split(x, axis, block)
    scales = jnp.abs(parts).max(axis + 1, keepdims=True)
    y = jnp.abs(parts) / jnp.where(scales > 0, scales, 1.0)
    table = levels(bits)
    firsts = 2 ** np.arange(bits)
    # in the middle between the last level of a decade and the first of the next
    borders = (table[firsts].astype(np.float64) + table[firsts - 1]) / 2
    e = jnp.full(y.shape, -1, jnp.int32)
    for border in borders:
        e += y >= np.float32(border)
    count = jnp.left_shift(1, jnp.maximum(e, 0))
    # the place within the decade, as a share of its parts: the middle of a part is its level
    width = _pick(e, _widths(bits))
    j = jnp.floor((y - _pick(e, table[firsts])) / width + 0.5).astype(jnp.int32)
    code = jnp.where(e < 0, 0, count + jnp.clip(j, 0, count - 1))
    if signed:
        codes = (jnp.sign(parts).astype(jnp.int32) * code).astype(jnp.int8)
    else:
        # A second moment rounded to 0 would turn the next step into one of 1 / eps.
        codes = jnp.maximum(code, (parts > 0).astype(jnp.int32)).astype(jnp.uint8)
    return Quantized8bit(codes.reshape(x.shape), scales.squeeze(axis + 1))


def decode(coded: Quantized8bit) -> Float[Array, "..."]:
    """Dequantize to float32."""
    codes, scales = coded
    signed = codes.dtype == jnp.int8
    bits = 7 if signed else 8
    # The block axis is not stored: it is the one whose size differs, since blocks have at least 16
    # entries.
    axis = next(a for a, n in enumerate(codes.shape) if scales.shape[a] != n)
    c = jnp.abs(codes.astype(jnp.int32))
    # The decade is the highest bit of the code: exact, where a float logarithm could round up.
    e = 31 - jax.lax.clz(jnp.maximum(c, 1))
    j = c - jnp.left_shift(1, e)
    level = _pick(e, levels(bits)[2 ** np.arange(bits)]) + j * _pick(e, _widths(bits))
    level = jnp.where(c > 0, level, 0.0)
    if signed:
        level = level * jnp.sign(codes).astype(jnp.float32)
    parts = _split(level, axis, codes.shape[axis] // scales.shape[axis])
    return (parts * jnp.expand_dims(scales, axis + 1)).reshape(codes.shape)


def _widths(bits: int) -> np.ndarray:
    """The distance of the levels in each decade."""
    e = np.arange(bits)
    top = 0.1 + 0.9 * (1 - 0.5 / 2.0 ** (bits - 1))
    return (0.9 * 10.0 ** (e - bits + 1) / 2.0**e / top).astype(np.float32)


def _pick(e: Array, values: np.ndarray) -> Array:
    """values[e] for a few values: selects fuse, a gather would not."""
    picked = jnp.full(e.shape, values[0], jnp.float32)
    for n, value in enumerate(values[1:], 1):
        picked = jnp.where(e == n, value, picked)
    return picked


def _split(x: Array, axis: int, block: int) -> Array:
    """The axis as (blocks, entries of a block)."""
    shape = (*x.shape[:axis], x.shape[axis] // block, block, *x.shape[axis + 1 :])
    return x.reshape(shape)
