"""Loops over tiles of a fixed size, so that a token's result does not depend on its batch.

Floating-point sums depend on their order, and compilers choose orders by shape. A loop whose body
always has the same shapes runs the same products in the same order, for a token that is decoded and
for one of a training batch. Barriers and a number of passes that the compiler does not know keep
the body from being fused with what surrounds it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from jalign.kernels import devices
from jalign.parallel.axes import MESH_AXES, TOKEN_AXES
from jalign.parallel.rules import ways

# Tokens per tile. A CPU computes a row of a product as fast in small tiles; a matrix unit has 128
# rows, and reading the weights takes longer than so many products.
TILE = {"cpu": 16}
TILE_ELSEWHERE = 128


def tile_size() -> int:
    """Tokens per tile on the device that programs are built for."""
    return TILE.get(devices.platform(), TILE_ELSEWHERE)


def with_gradient_of(
    ordinary: Callable[..., PyTree], forward: Callable[..., PyTree]
) -> Callable[..., PyTree]:
    """`forward`, differentiated as `ordinary`, which computes the same but for rounding."""
    function = jax.custom_vjp(forward)
    function.defvjp(
        lambda *xs: (forward(*xs), xs), lambda xs, cotangent: jax.vjp(ordinary, *xs)[1](cotangent)
    )
    return function


def tiled(fn: Callable[..., PyTree], params: PyTree, *xs: PyTree) -> PyTree:
    """fn(params, *xs) for a function of single tokens, tile by tile.

    Args:
      fn: of arrays with a leading axis of tokens, to arrays with the same; it closes over no
        traced array.
      xs: arrays [n, ...].
    """
    forward = functools.partial(on_each_device, functools.partial(_over_tiles, fn), TOKEN_AXES)
    return with_gradient_of(fn, forward)(params, *xs)


def _over_tiles(fn: Callable[..., PyTree], params: PyTree, *xs: Array) -> PyTree:
    n, size = xs[0].shape[0], tile_size()
    count = -(-n // size)
    xs = tuple(padded(x, 0, size) for x in xs)

    def cut(i: Array | int) -> tuple[Array, ...]:
        return tuple(jax.lax.dynamic_slice_in_dim(x, i * size, size) for x in xs)

    def body(i: Array, out: PyTree) -> PyTree:
        y = fused_alone(fn(params, *fused_alone(cut(i))))
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=i * size, axis=0)
        return jax.tree.map(put, out, y)

    shapes = jax.eval_shape(lambda: fn(params, *cut(0)))
    empty = jax.tree.map(lambda y: jnp.zeros((count * size, *y.shape[1:]), y.dtype), shapes)
    out = jax.lax.fori_loop(0, unknown(count, xs[0]), body, empty)
    return jax.tree.map(lambda y: y[:n], out)


def padded(x: Array, axis: int, size: int) -> Array:
    """x with zeros behind, up to a multiple of `size`."""
    return jnp.pad(x, [(0, -x.shape[a] % size if a == axis else 0) for a in range(x.ndim)])


def on_each_device(
    fn: Callable[..., PyTree], axes: Sequence[str], params: PyTree, *xs: Array
) -> PyTree:
    """fn(params, *xs) with xs split over the mesh in scope along their first axis, if it divides,
    and all of the parameters on every device: a product that is split over devices is added up in
    another order.
    """
    if ways(*MESH_AXES) == 1:
        return fn(params, *xs)
    split = PartitionSpec(tuple(axes)) if xs[0].shape[0] % ways(*axes) == 0 else PartitionSpec()
    specs = (PartitionSpec(), *[split] * len(xs))
    return jax.shard_map(fn, in_specs=specs, out_specs=split, check_vma=False)(params, *xs)


def unknown(count: int, x: Array) -> Array:
    """`count` passes, which the compiler does not know: it would inline a single one, and fuse it
    with what surrounds it. NaN in x adds a pass, whose slices are clamped: the last one again.
    """
    return count + jnp.isnan(x.ravel()[0]).astype(jnp.int32)


def fused_alone(x: PyTree) -> PyTree:
    """x, not fused with what reads it."""
    return jax.lax.optimization_barrier(x)
