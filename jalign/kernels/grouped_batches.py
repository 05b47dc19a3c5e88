"""Products by group on GPUs: batches of tiles of rows, each with a copy of its group's matrix.

A batch is one product of cuBLAS. Reading the matrix of a tile costs as much as multiplying some
hundred rows with it, so a tile has as many where there are as many rows; a tile that a group does
not fill is multiplied whole.

Letters: m rows, E groups, K inputs, N outputs, c tiles in a batch of r rows each.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jalign.kernels.grouped_loop import tiles

MOST_ROWS, LEAST_ROWS = 512, 16  # of a tile
COPIED = 2**27  # entries of copies of matrices per batch, about: 256 MiB in bfloat16
MOST_TILES = 64  # of a batch
FORWARD, TRANSPOSED = "crk,ckn->crn", "crn,ckn->crk"


@jax.custom_vjp
def in_batches(x: Array, w: Array, sizes: Array) -> Array:
    """`jalign.kernels.grouped.grouped_matmul`; rows after the last group are 0."""
    return _product(x, w, sizes, FORWARD)


def _forward(x: Array, w: Array, sizes: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return in_batches(x, w, sizes), (x, w, sizes)


def _backward(saved: tuple[Array, Array, Array], dy: Array) -> tuple[Array, Array, None]:
    x, w, sizes = saved

    def add(dw: Array, rows: Array, groups: Array) -> Array:
        pairs = _taken(x, rows), _taken(dy, rows)
        each = jnp.einsum("crk,crn->ckn", *pairs, preferred_element_type=jnp.float32)
        return dw.at[groups].add(each)

    dw = _over_batches(add, jnp.zeros(w.shape, jnp.float32), w, len(x), sizes)
    return _product(dy, w, sizes, TRANSPOSED), dw.astype(w.dtype), None


in_batches.defvjp(_forward, _backward)


def of_layer(x: Array, stack: Array, layer: Array, sizes: Array, *, transposed: bool) -> Array:
    """x[i] w, or x[i] w^T, with w = stack[layer, g] for the group g of row i, in the dtype of x;
    rows after the last group are 0.
    """
    w = stack.reshape(-1, *stack.shape[2:])
    equation = TRANSPOSED if transposed else FORWARD
    return _product(x, w, sizes, equation, layer * stack.shape[1])


def _product(x: Array, w: Array, sizes: Array, equation: str, first: Array | int = 0) -> Array:
    """Group g has the matrix w[first + g]."""
    width = w.shape[2] if equation == FORWARD else w.shape[1]

    def write(out: Array, rows: Array, groups: Array) -> Array:
        copies = w[first + groups]
        y = jnp.einsum(equation, _taken(x, rows), copies, preferred_element_type=jnp.float32)
        return out.at[rows].set(y.astype(x.dtype), mode="drop", unique_indices=True)

    return _over_batches(write, jnp.zeros((len(x), width), x.dtype), w, len(x), sizes)


def _over_batches(
    body: Callable[[Array, Int[Array, "c r"], Int[Array, " c"]], Array],
    initial: Array,
    w: Float[Array, "_ K N"],
    m: int,
    sizes: Int[Array, " E"],
) -> Array:
    """The carry of body(carry, rows, groups) after all tiles. Rows of a tile that its group does
    not have lie beyond x, each at an index of its own.
    """
    per_group = max(m // len(sizes), 1)
    r = min(max(1 << (per_group - 1).bit_length(), LEAST_ROWS), MOST_ROWS)
    starts, groups, count = tiles(sizes, m, r)
    c = min(max(COPIED // (w.shape[1] * w.shape[2]), 1), MOST_TILES, len(starts))
    padding = (0, -len(starts) % c)
    starts, groups = jnp.pad(starts, padding), jnp.pad(groups, padding)
    ends = jnp.cumsum(sizes)

    def step(i: Array, carry: Array) -> Array:
        first, group = (jax.lax.dynamic_slice_in_dim(a, i * c, c) for a in (starts, groups))
        rows = first[:, None] + jnp.arange(r)
        present = (rows < ends[group][:, None]) & (i * c + jnp.arange(c) < count)[:, None]
        beyond = m + jnp.arange(c * r).reshape(c, r)
        return body(carry, jnp.where(present, rows, beyond), group)

    # As many as there are tiles: with an axis `expert` most rows have no group. A loop of known
    # length that skips them by a `cond` copies its carry.
    return jax.lax.fori_loop(0, -(-count // c), step, initial)


def _taken(x: Float[Array, "m D"], rows: Int[Array, "c r"]) -> Float[Array, "c r D"]:
    return x.at[rows].get(mode="fill", fill_value=0, unique_indices=True)
