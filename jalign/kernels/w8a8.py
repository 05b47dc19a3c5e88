"""Products of frozen matrices in 8 bits: weights and activations, on the units that take 8 bits.

TPU v5e and v6e multiply int8 at twice the rate of bfloat16, H100 and H200 int8 and float8 (e4m3).

Vector-wise quantization of LLM.int8() (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339,
section 3.1): with the largest code c = 127 (int8) or 448 (e4m3), one scale per output of a matrix
and one per token,

    s_o = max_i |W_io| / c,   s_n = max_i |x_ni| / c,
    y_no = s_n s_o sum_i round(x_ni / s_n) round(W_io / s_o)

The sum is exact in int32 (int8) or taken in float32 (e4m3).

Deviations: no outlier features are kept in 16 bits. The gradient of x is that of y = x W for the
decoded W (straight-through), as a product in the type of its cotangent.

Shape letters: ... stacked matrices, n tokens, i inputs, o outputs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from jalign.kernels.nf4 import no_gradient

CODES = {"w8a8": jnp.int8, "fp8": jnp.float8_e4m3fn}
"""Kind -> type of the codes."""

ChannelwiseArrays = dict[str, Array]
"""codes: [..., i, o] int8 or float8_e4m3fn; channel_scales: [..., 1, o] float32."""


def encode(w: Float[Array, "... i o"], kind: str) -> ChannelwiseArrays:
    """Quantize matrices, in float32 arithmetic.

    Raises:
      ValueError: for an unknown kind.
    """
    if kind not in CODES:
        raise ValueError(f"quantization {kind!r} is unknown; there is: {', '.join(CODES)}")
    codes, scales = _quantize(w, -2, CODES[kind])
    return {"codes": codes, "channel_scales": scales}


def decode(arrays: ChannelwiseArrays, dtype: DTypeLike = jnp.float32) -> Float[Array, "... i o"]:
    """Dequantize matrices."""
    return (arrays["codes"].astype(jnp.float32) * arrays["channel_scales"]).astype(dtype)


def _quantize(x: Array, axis: int, codes: Any) -> tuple[Array, Array]:
    """Codes, and one scale for all entries along the axis."""
    integer = jnp.issubdtype(codes, jnp.integer)
    largest = jnp.iinfo(codes).max if integer else float(jnp.finfo(codes).max)
    x = x.astype(jnp.float32)
    # Never 0: entries that are all 0 would divide 0 by 0.
    scales = jnp.maximum(jnp.abs(x).max(axis, keepdims=True), 1e-30) / largest
    x = x / scales
    return (jnp.round(x) if integer else x).astype(codes), scales


@jax.custom_vjp
def quantized_matmul(x: Float[Array, "n i"], arrays: ChannelwiseArrays) -> Float[Array, "n o"]:
    """x W in the dtype of x, both in 8 bits. The codes have no gradient."""
    codes = arrays["codes"]
    tokens, scales = _quantize(x, -1, codes.dtype)
    exact = jnp.int32 if codes.dtype == jnp.int8 else jnp.float32
    sums = jnp.matmul(tokens, codes, preferred_element_type=exact)
    return (sums.astype(jnp.float32) * scales * arrays["channel_scales"]).astype(x.dtype)


def _forward(x: Array, arrays: ChannelwiseArrays) -> tuple[Array, ChannelwiseArrays]:
    return quantized_matmul(x, arrays), arrays


def _backward(arrays: ChannelwiseArrays, dy: Array) -> tuple[Array, dict[str, Any]]:
    codes, scales = arrays["codes"], arrays["channel_scales"]
    # int8 and e4m3 are exact in bfloat16: the matrix is read in 8 bits, and the scales go to dy
    dx = (dy.astype(jnp.float32) * scales).astype(dy.dtype) @ codes.astype(dy.dtype).T
    return dx, jax.tree.map(no_gradient, arrays)


quantized_matmul.defvjp(_forward, _backward)
