"""Arrays that wait in the host's memory until a device needs them.

An array says where it is (`memory_kind` of its sharding, and in a traced function the memory space
of its type), so programs follow their arguments: what is on the device is left as it is.
"""

from __future__ import annotations

from typing import Any

import jax
from jaxtyping import PyTree

HOST = "pinned_host"


def on_host(shardings: PyTree) -> PyTree:
    """The same shardings in the host's memory.

    Raises:
      ValueError: JAX knows no such memory of these devices. Those of `jalign plan` for NVIDIA cards
        have none, whatever the cards have.
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
    """In a traced function: every array on the device."""
    return jax.tree.map(
        lambda x: jax.device_put(x, jax.memory.Space.Device) if _waits(x) else x, tree
    )


def to_host_like(tree: PyTree, like: PyTree) -> PyTree:
    """In a traced function: every array in the memory in which its counterpart in `like` is."""
    return jax.tree.map(
        lambda x, was: jax.device_put(x, jax.memory.Space.Host) if _waits(was) else x, tree, like
    )


def _waits(x: Any) -> bool:
    return jax.typeof(x).memory_space == jax.memory.Space.Host
