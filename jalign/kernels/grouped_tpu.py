"""Products by group on TPUs: XLA's kernel, and one that reads matrices where and as they lie, for
the gradient of rows and for matrices of one layer in a stack of layers.

XLA's kernel of `jax.lax.ragged_dot` wants matrices [E, K, N]. Of the gradient it copies all of them
into that form first: 1.3 ms for 128 of [2048, 768] on a v5p by the compiler's cycles, where the
product takes 1.4 at the peak. And of a stack it copies the layer first, which in decoding takes
longer than the products. Megablox (Gale et al. 2022, https://arxiv.org/abs/2211.15841; part of JAX)
does neither.

Letters: m rows, E groups, K inputs, N outputs, L layers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

# Rows per product, as in XLA's kernel: of 1,500 rows a group, 8 % are multiplied twice.
TILE = 128
ON_CHIP = 12 * 2**20  # bytes that two blocks of each operand may take: XLA's default is 16 MiB


@jax.custom_vjp
def ragged(x: Array, w: Array, sizes: Array) -> Array:
    """`jalign.kernels.grouped.grouped_matmul`."""
    return jax.lax.ragged_dot(x, w, sizes)


def _forward(x: Array, w: Array, sizes: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return ragged(x, w, sizes), (x, w, sizes)


def _backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array, None]:
    x, w, sizes = saved
    by_matrix = jax.linear_transpose(lambda w: jax.lax.ragged_dot(x, w, sizes), w)
    return transposed(dy, w, sizes), by_matrix(dy)[0], None


ragged.defvjp(_forward, _backward)


def transposed(dy: Array, w: Array, sizes: Array, *, interpret: bool = False) -> Array:
    """dy[i] w[g]^T for the group g of row i, in the dtype of dy."""
    tiles = tiling(len(dy), w.shape[2], w.shape[1], w.dtype.itemsize)
    if tiles is None:
        return jax.lax.ragged_dot(dy, w.swapaxes(1, 2), sizes)
    return _product(dy, w, sizes, None, tiles, transposed=True, interpret=interpret)


def of_layer(
    x: Array,
    stack: Array,
    layer: Array,
    sizes: Array,
    *,
    transposed: bool,
    interpret: bool = False,
) -> Array:
    """x[i] w, or x[i] w^T, with w = stack[layer, g] for the group g of row i, in the dtype of x."""
    k, n = reversed(stack.shape[2:]) if transposed else stack.shape[2:]
    tiles = tiling(len(x), k, n, stack.dtype.itemsize)
    if tiles is None:
        w = stack[layer]
        return jax.lax.ragged_dot(x, w.swapaxes(1, 2) if transposed else w, sizes)
    return _product(x, stack, sizes, layer, tiles, transposed=transposed, interpret=interpret)


def _product(
    x: Array,
    w: Array,
    sizes: Array,
    layer: Array | None,
    tiles: tuple[int, int, int],
    *,
    transposed: bool,
    interpret: bool,
) -> Array:
    """x with matrices [E, K, N], or with those of a layer of [L, E, K, N]."""
    # Imported here: Pallas costs half a second, and only TPUs need it.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm

    offset = None
    if layer is not None:
        # Group g reads the matrix g - offset.
        offset = (-layer * w.shape[1]).astype(jnp.int32)
        w = w.reshape(-1, *w.shape[2:])
    options = {"tiling": tiles, "transpose_rhs": transposed, "interpret": interpret}
    return gmm(x, w, sizes.astype(jnp.int32), x.dtype, group_offset=offset, **options)


def tiling(m: int, inputs: int, outputs: int, itemsize: int) -> tuple[int, int, int] | None:
    """Rows, inputs and outputs of a block; None: no block fits."""
    rows = next((tile for tile in (TILE, 64, 32, 16) if m % tile == 0), None)
    block = columns(outputs, inputs, itemsize)
    return None if rows is None or block is None else (rows, inputs, block)


def columns(k: int, n: int, itemsize: int) -> int | None:
    """How many of the k outputs a block has, a divisor of k; None: no block fits on the chip."""
    fits = lambda c: 2 * itemsize * (c * n + TILE * (c + n)) + 4 * TILE * c <= ON_CHIP  # noqa: E731
    sizes = [c for c in range(TILE, k + 1, TILE) if k % c == 0 and fits(c)]
    return max(sizes, default=None) if n % TILE == 0 else None
