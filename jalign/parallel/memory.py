"""Offloading: arrays kept in host memory until a device needs them.

An array's sharding has a `memory_kind`, and its type a memory space in a traced function, so
programs adapt to their arguments: arrays on the device are not moved.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PyTree

HOST = "pinned_host"


def on_host(shardings: PyTree) -> PyTree:
    """The same shardings in the host's memory.

    Raises:
      ValueError: JAX has no such memory for these devices. The NVIDIA targets of `jalign plan`
        never have it, although the cards do.
    """

    def one(sharding: Any) -> Any:
        host = sharding.with_memory_kind(HOST)
        if host.memory_kind != HOST:
            kind = next(iter(sharding.device_set)).device_kind
            raise ValueError(
                f"JAX knows no memory of the host ({HOST}) of these devices ({kind}): nothing can "
                "be offloaded to it"
            )
        return host

    return jax.tree.map(one, shardings)


def is_on_host(x: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether an array, or a shape in its sharding, is in the host's memory."""
    return getattr(x.sharding, "memory_kind", None) == HOST


def to_host(tree: PyTree) -> PyTree:
    """A copy of arrays in the host's memory."""
    where = on_host(jax.tree.map(lambda x: x.sharding, tree))
    return jax.jit(lambda x: x, out_shardings=where)(tree)


def to_device(tree: PyTree) -> PyTree:
    """In a traced function, move every array to the device."""
    return jax.tree.map(
        lambda x: jax.device_put(x, jax.memory.Space.Device) if _waits(x) else x, tree
    )


def to_host_like(tree: PyTree, like: PyTree) -> PyTree:
    """In a traced function, move every array to the memory of its counterpart in `like`."""
    return jax.tree.map(
        lambda x, was: jax.device_put(x, jax.memory.Space.Host) if _waits(was) else x, tree, like
    )


def _waits(x: Any) -> bool:
    return jax.typeof(x).memory_space == jax.memory.Space.Host
