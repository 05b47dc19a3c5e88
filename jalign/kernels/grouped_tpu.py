"""Products by group on TPUs: XLA's kernel, and for the gradient of rows one that reads matrices
transposed.

XLA's kernel of `jax.lax.ragged_dot` wants matrices [E, K, N]. Of the gradient it copies all of them
into that form first: 1.3 ms for 128 of [2048, 768] on a v5p by the compiler's cycles, where the
product takes 1.4 at the peak. Megablox (Gale et al. 2022, https://arxiv.org/abs/2211.15841; part of
JAX) multiplies with the matrix as it lies.

Letters: m rows, E groups, K inputs, N outputs.
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
    block = columns(w.shape[1], w.shape[2], w.dtype.itemsize)
    if len(dy) % TILE or block is None:
        return jax.lax.ragged_dot(dy, w.swapaxes(1, 2), sizes)
    # Imported here: Pallas costs half a second, and only TPUs need it.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm

    options = {"tiling": (TILE, w.shape[2], block), "transpose_rhs": True, "interpret": interpret}
    return gmm(dy, w, sizes.astype(jnp.int32), dy.dtype, **options)


def columns(k: int, n: int, itemsize: int) -> int | None:
    """How many of the k outputs a block has, a divisor of k; None: no block fits on the chip."""
    fits = lambda c: 2 * itemsize * (c * n + TILE * (c + n)) + 4 * TILE * c <= ON_CHIP  # noqa: E731
    sizes = [c for c in range(TILE, k + 1, TILE) if k % c == 0 and fits(c)]
    return max(sizes, default=None) if n % TILE == 0 else None
