"""Checksums of arrays that do not depend on how the arrays are sharded.

Orbax keeps no checksum of the data it stores: a bit that flips on disk loads as a wrong weight,
silently. A fingerprint that is taken before saving and again after restoring proves storage,
resharding and dtype in one go. It costs one read of the arrays.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import PyTree

from jalign.parallel.memory import to_device
from jalign.parallel.paths import named_leaves


def _bits(x: Array) -> Array:
    """The bits of every element as uint32, exact for every dtype; 8-byte elements give two."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag], axis=-1)
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    elif jnp.issubdtype(x.dtype, jnp.integer) and jnp.iinfo(x.dtype).bits < 8:
        x = x.astype(jnp.int8)
    elif jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 8:
        x = x.astype(jnp.float32)  # every 4-bit float is exact in float32
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _checksum(x: Array) -> Array:
    """sum_i mix(bits_i + i * odd) mod 2**32: order of summation, and so sharding, cannot matter.

    `mix` (lowbias32, https://nullprogram.com/blog/2018/07/31) is a bijection, so one changed
    element always changes the sum. A plain weighted sum would miss swaps: the bits of ordinary
    floats differ by high powers of two, which cancel against a distance in places that is one as
    well.
    """
    bits = _bits(x)
    index = jnp.zeros(bits.shape, jnp.uint32)
    stride = 1
    # The index in row-major order, without a reshape to one axis: that would gather the array.
    for axis in reversed(range(bits.ndim)):
        place = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        index = index + place * jnp.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    h = bits + index * jnp.uint32(0x9E3779B9)
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D)
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    return jnp.sum(h ^ (h >> 16), dtype=jnp.uint32)


@jax.jit
def _checksums(leaves: list[Array]) -> list[Array]:
    return [_checksum(to_device(x)) for x in leaves]  # scalars, so every host has them whole


def fingerprint(tree: PyTree) -> dict[str, int]:
    """A 32-bit checksum of every leaf, by name, in one compiled call; the same on any mesh.

    Args:
      tree: pytree of jax arrays of any dtype, typed PRNG keys included.
    """
    named = named_leaves(tree)
    return dict(zip(named, map(int, jax.device_get(_checksums(list(named.values())))), strict=True))


def combine(checksums: Mapping[str, int | str]) -> str:
    """One digest of a whole tree, 16 hexadecimal digits, for a base model or a reference."""
    return hashlib.sha256(json.dumps(dict(checksums), sort_keys=True).encode()).hexdigest()[:16]
