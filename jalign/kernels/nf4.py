"""Frozen matrices in 4 or 8 bits, and products with them.

Block-wise quantization of QLoRA (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314, section
3): the scale of a block of 64 consecutive entries along the input axis is its largest magnitude,
and every entry is the nearest of the levels, -1 to 1, times the scale. nf4: the 16 quantiles of a
normal distribution (appendix E), two to a byte; int8: -127/127 ... 127/127. The scales are
quantized too (double quantization): 8 bits with a step for each 256 of them along the output axis,
around their mean. That makes 4.13 or 8.13 bits per entry.

Deviations: the paper's second quantization is an 8-bit float, here it is an 8-bit integer; if an
axis is not a multiple of the block, the block is the largest divisor of both.

Shape letters: ... stacked matrices, i inputs, o outputs, b = i / 64 blocks, g = o / 256 groups.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

BLOCK, GROUP = 64, 256
NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
KINDS = ("nf4", "int8")

QuantizedArrays = dict[str, Array]
"""codes: [..., i / 2, o] uint8 (nf4) or [..., i, o] int8; scales: [..., b, o] int8; steps: [..., b,
g] float32; mean: [..., 1, 1] float32."""


def encode(w: Float[Array, "... i o"], kind: str) -> QuantizedArrays:
    """Quantize matrices, in float32 arithmetic.

    Raises:
      ValueError: for an unknown kind, or an odd number of inputs with nf4.
    """
    if kind not in KINDS:
        raise ValueError(f"quantization {kind!r} is unknown; there is: {', '.join(KINDS)}")
    *stack, i, o = w.shape
    if kind == "nf4" and i % 2:
        raise ValueError(f"nf4 packs two inputs to a byte, and this matrix has {i}")
    block, group = math.gcd(i, BLOCK), math.gcd(o, GROUP)
    blocks = w.astype(jnp.float32).reshape(*stack, i // block, block, o)
    largest = jnp.abs(blocks).max(-2)
    mean = largest.mean((-2, -1), keepdims=True)
    # Centered, as in the paper: scales are positive, and symmetric codes would waste their sign.
    around = (largest - mean).reshape(*stack, i // block, o // group, group)
    # Never 0: a group of equal scales would divide 0 by 0.
    steps = jnp.maximum(jnp.abs(around).max(-1), 1e-30) / 127
    scales = jnp.round(around / steps[..., None]).astype(jnp.int8).reshape(largest.shape)
    arrays = {"scales": scales, "steps": steps, "mean": mean}
    # entries are coded with the scale that decoding will find
    decoded_scales = _scales(arrays)[..., None, :]
    relative = (blocks / jnp.where(decoded_scales > 0, decoded_scales, 1.0)).reshape(w.shape)
    if kind == "int8":
        codes = jnp.round(jnp.clip(relative, -1, 1) * 127).astype(jnp.int8)
    else:
        # counted: searchsorted would hold several int32 arrays as large as the matrix
        between = (NF4[1:] + NF4[:-1]) / 2
        levels = jnp.zeros(w.shape, jnp.uint8)
        for b in between:
            levels += relative > b
        pairs = levels.reshape(*stack, i // 2, 2, o)
        codes = pairs[..., 0, :] | (pairs[..., 1, :] << 4)
    return {"codes": codes} | arrays


def decode(arrays: QuantizedArrays, dtype: DTypeLike = jnp.float32) -> Float[Array, "... i o"]:
    """Dequantize matrices."""
    codes = arrays["codes"]
    if codes.dtype == jnp.int8:
        levels = codes.astype(jnp.float32) / 127
    else:
        *stack, half, o = codes.shape
        both = jnp.stack([codes & 15, codes >> 4], -2).reshape(*stack, 2 * half, o)
        levels = jnp.asarray(NF4)[both]
    scales = _scales(arrays)
    *stack, _, o = levels.shape
    blocks = levels.reshape(*stack, scales.shape[-2], -1, o) * scales[..., None, :]
    return blocks.reshape(levels.shape).astype(dtype)


def _scales(arrays: QuantizedArrays) -> Float[Array, "... b o"]:
    scales, steps = arrays["scales"], arrays["steps"]
    groups = scales.astype(jnp.float32).reshape(*steps.shape, -1) * steps[..., None]
    return jnp.maximum(groups.reshape(scales.shape) + arrays["mean"], 0.0)


@jax.custom_vjp
def quantized_matmul(x: Float[Array, "n i"], arrays: QuantizedArrays) -> Float[Array, "n o"]:
    """x W in the dtype of x. The backward pass dequantizes W again, so that only codes are saved;
    the codes have no gradient.
    """
    return x @ decode(arrays, x.dtype)


def _forward(x: Array, arrays: QuantizedArrays) -> tuple[Array, QuantizedArrays]:
    return quantized_matmul(x, arrays), arrays


# Without this custom gradient autodiff keeps the dense weights of every layer: 51 instead of
# 38 GiB for a 7B model on an H200 without remat, more than in bfloat16.
def _backward(arrays: QuantizedArrays, dy: Array) -> tuple[Array, dict[str, Any]]:
    zeros = jax.tree.map(no_gradient, arrays)
    return dy @ decode(arrays, dy.dtype).T, zeros


def no_gradient(x: Array) -> Any:
    """A cotangent of zeros, for what has no gradient."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.zeros_like(x)
    # The only cotangent that JAX accepts for integers.
    return np.zeros(x.shape, jax.dtypes.float0)


quantized_matmul.defvjp(_forward, _backward)
