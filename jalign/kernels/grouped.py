"""Products of rows with the matrix of their group: the experts of a mixture.

Rows come sorted by group, so that group g is the `sizes[g]` rows after those of earlier groups, and
the products take no more arithmetic than the rows need, whatever the sizes are.

XLA has a kernel of `jax.lax.ragged_dot` for TPUs alone. Elsewhere it multiplies every row with
every group and masks: 128 times the arithmetic for 128 experts. So a CPU takes a loop over tiles of
rows, and a GPU products of many tiles at once.

Letters: m rows, E groups, K inputs, N outputs, L layers.
"""

from __future__ import annotations

from jax import Array
from jaxtyping import Float, Int

from jalign.kernels import devices
from jalign.kernels.grouped_batches import in_batches
from jalign.kernels.grouped_loop import looped
from jalign.kernels.grouped_tpu import of_layer, ragged


def grouped_matmul(
    x: Float[Array, "m K"], w: Float[Array, "E K N"], sizes: Int[Array, " E"]
) -> Float[Array, "m N"]:
    """x[i] w[g] for the group g of row i, in the dtype of x, summed in float32. In rows after the
    last group the result and the gradient of x are unspecified.
    """
    by_platform = {"cpu": looped, "tpu": ragged}
    return by_platform.get(devices.platform(), in_batches)(x, w, sizes)


def grouped_matmul_of_layer(
    x: Float[Array, "m K"],
    stack: Float[Array, "L E K N"],
    layer: Int[Array, ""],
    sizes: Int[Array, " E"],
) -> Float[Array, "m N"]:
    """`grouped_matmul` with the matrices of one layer, which TPUs read where they lie."""
    if devices.platform() == "tpu":
        return of_layer(x, stack, layer, sizes)
    return grouped_matmul(x, stack[layer], sizes)
