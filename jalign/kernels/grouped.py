"""Products of rows with the matrix of their group: the experts of a mixture.

Rows come sorted by group, so that group g is the `sizes[g]` rows after those of earlier groups, and
the products take no more arithmetic than the rows need, whatever the sizes are.

XLA has a kernel of `jax.lax.ragged_dot` for TPUs alone. Elsewhere it multiplies every row with
every group and masks: 128 times the arithmetic for 128 experts. So a CPU takes a loop over tiles of
rows, and a GPU products of many tiles at once.

Letters: m rows, E groups, K inputs, N outputs, L layers.
"""

from __future__ import annotations

import jax
from jax import Array
from jaxtyping import Float, Int

from jalign.kernels import devices, grouped_batches, grouped_tpu
from jalign.kernels.grouped_loop import looped


def grouped_matmul(
    x: Float[Array, "m K"], w: Float[Array, "E K N"], sizes: Int[Array, " E"]
) -> Float[Array, "m N"]:
    """x[i] w[g] for the group g of row i, in the dtype of x, summed in float32. In rows after the
    last group the result and the gradient of x are unspecified.
    """
    by_platform = {"cpu": looped, "tpu": grouped_tpu.ragged}
    return by_platform.get(devices.platform(), grouped_batches.in_batches)(x, w, sizes)


@jax.custom_vjp
def grouped_matmul_of_layer(
    x: Float[Array, "m K"],
    stack: Float[Array, "L E K N"],
    layer: Int[Array, ""],
    sizes: Int[Array, " E"],
) -> Float[Array, "m N"]:
    """`grouped_matmul` with the matrices of one layer, which TPUs and GPUs read where they lie.

    For matrices that are not trained: their gradient has the size of the stack in every layer.
    """
    return _of_layer(x, stack, layer, sizes, transposed=False)


def _forward(x: Array, stack: Array, layer: Array, sizes: Array) -> tuple[Array, tuple]:
    return grouped_matmul_of_layer(x, stack, layer, sizes), (x, stack, layer, sizes)


def _backward(saved: tuple, dy: Array) -> tuple[Array, Array, None, None]:
    x, stack, layer, sizes = saved
    _, pull = jax.vjp(lambda stack: grouped_matmul(x, stack[layer], sizes), stack)
    return _of_layer(dy, stack, layer, sizes, transposed=True), pull(dy)[0], None, None


grouped_matmul_of_layer.defvjp(_forward, _backward)


def _of_layer(x: Array, stack: Array, layer: Array, sizes: Array, *, transposed: bool) -> Array:
    platform = devices.platform()
    if platform == "cpu":
        w = stack[layer]
        return looped(x, w.swapaxes(1, 2) if transposed else w, sizes)
    product = grouped_tpu.of_layer if platform == "tpu" else grouped_batches.of_layer
    return product(x, stack, layer, sizes, transposed=transposed)
