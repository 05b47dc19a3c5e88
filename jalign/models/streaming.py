"""From slices of a checkpoint to arrays on devices, with little memory of the host in between.

Two ways. Plain parameters of files on disk are read shard by shard (`by_shard`). What is quantized
on the way in, and everything from a bucket, is read by layers (`Stream`) in contiguous ranges,
ahead of their use; the devices exchange them into their final shards, where they are encoded. The
hosts divide the bytes of a parameter among them as far as it is sharded: what is replicated (over
`data`, or all of a norm) is read by every host that holds a copy, once.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from jalign.models.quant import encode

UNIT_BYTES = 16 * 2**20
"""Layers of a parameter that are read together, all devices counted; a larger layer alone."""

AHEAD_BYTES, THREADS = 128 * 2**20, 8
"""Shards of units that wait on this host, and how many are read at once."""

Index = tuple[slice, ...]
Read = Callable[[Index], np.ndarray]
Progress = Callable[[int, int], None]
"""(bytes that this host has read, bytes that it reads in all)."""

Result = TypeVar("Result")


def by_shard(
    shape: tuple[int, ...], sharding: Sharding, read: Read, advance: Callable[[int], None]
) -> Array:
    """An array of which one shard at a time is on the host."""
    arrays: list[Array] = []
    for index, devices in _shards(sharding, shape).items():
        values = read(_slices(index))
        arrays += [jax.device_put(values, device) for device in devices]
        jax.block_until_ready(arrays[-len(devices) :])
        advance(values.nbytes)
        del values
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


class Stream(NamedTuple):
    """A parameter that is read by layers.

    Attributes:
      shape, dtype: of the parameter, whose leading `stack` axes have a tensor for each index.
      sharding: of the parameter.
      major: its axis that is outermost in a tensor of the file.
      read: index -> values.
      kind: of the quantization, or None.
      targets: shardings of its codes and scales by name; without quantization of "" alone.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    stack: int
    sharding: Sharding
    major: int
    read: Read
    kind: str | None
    targets: dict[str, Sharding]

    @property
    def layers(self) -> int:
        """How many are in a unit: a divisor of all."""
        if not self.stack:
            return 1
        total = self.shape[0]
        one = math.prod(self.shape[1:]) * self.dtype.itemsize
        return max(
            n for n in range(1, total + 1) if total % n == 0 and (n == 1 or n * one <= UNIT_BYTES)
        )

    @property
    def unit(self) -> tuple[int, ...]:
        """The shape of a unit."""
        return (self.layers, *self.shape[1:]) if self.stack else self.shape

    @property
    def starts(self) -> range:
        """The first layers of the units."""
        return range(0, self.shape[0], self.layers) if self.stack else range(1)

    @property
    def reading(self) -> Sharding:
        """How a unit is split while it is read: by rows of the file, so that every shard is a
        contiguous range. Of the mesh's axes, those that the rows do not divide among hold copies.
        """
        if not isinstance(self.sharding, NamedSharding):
            return self.sharding
        mesh, spec = self.sharding.mesh, list(self.sharding.spec)
        spec += [None] * (len(self.shape) - len(spec))
        if self.stack:  # the axis of layers: one unit of them is on all devices
            spec[0] = None
        kept, inner = spec[: self.stack], spec[self.stack :]
        axes = tuple(
            a for entry in inner for a in ((entry,) if isinstance(entry, str) else entry or ())
        )
        # Shards of columns would make every device read all rows: a vocabulary may be odd.
        while self.shape[self.major] % math.prod(mesh.shape[a] for a in axes):
            axes = axes[:-1]
        rows: list = [*kept, *[None] * len(inner)]
        rows[self.major] = axes or None
        return NamedSharding(mesh, PartitionSpec(*rows))

    @property
    def shards(self) -> dict[tuple[tuple[int, int], ...], list]:
        """Bounds of a shard of a unit -> its devices here."""
        return _shards(self.reading, self.unit)

    @property
    def read_bytes(self) -> int:
        """What this host reads."""
        return len(self.starts) * shard_bytes(self.reading, self.unit, self.dtype.itemsize)

    def jobs(self) -> Iterator[tuple[Callable[[], np.ndarray], int]]:
        """(read, bytes) of every shard, in the order in which `arrays` takes them."""
        for start in self.starts:
            for bounds in self.shards:
                index = _slices(bounds)
                if self.stack:
                    index = (slice(start, start + self.layers), *index[1:])
                yield partial(self.read, index), _size(bounds) * self.dtype.itemsize

    def arrays(
        self, values: Iterator[np.ndarray], advance: Callable[[int], None]
    ) -> dict[str, Array]:
        """The arrays of the parameter by name, as in `targets`."""
        update = _updater(self.kind, tuple(self.targets.items()), self._final())
        stacked: dict[str, Array] | None = None
        for start in self.starts:
            pieces: list[Array] = []
            for devices in self.shards.values():
                shard = next(values)
                pieces += [jax.device_put(shard, device) for device in devices]
                jax.block_until_ready(pieces[-len(devices) :])
                advance(shard.nbytes)
                del shard
            unit = jax.make_array_from_single_device_arrays(self.unit, self.reading, pieces)
            if len(self.starts) == 1:
                return update.parts(unit)
            if stacked is None:
                stacked = update.empty(unit, len(self.starts))
            stacked = update.put(stacked, unit, start)
            # Units must not queue up on the devices while the host reads on.
            jax.block_until_ready(stacked)
        assert stacked is not None
        return stacked

    def _final(self) -> Sharding:
        if not isinstance(self.sharding, NamedSharding) or not self.stack:
            return self.sharding
        spec = (None, *self.sharding.spec[1:])
        return NamedSharding(self.sharding.mesh, PartitionSpec(*spec))


def stream(streams: Iterable[Stream], advance: Callable[[int], None]) -> Iterator[dict[str, Array]]:
    """The arrays of parameters, in order, while the next ones are read. On several hosts all must
    iterate together.
    """
    streams = list(streams)
    values = ahead(job for s in streams for job in s.jobs())
    for s in streams:
        yield s.arrays(values, advance)


def ahead(jobs: Iterable[tuple[Callable[[], Result], int]]) -> Iterator[Result]:
    """Results of jobs (call, bytes), in order. Later jobs run in threads while their results fit
    into `AHEAD_BYTES`; a larger one runs alone.
    """
    pool = ThreadPoolExecutor(THREADS, "jalign-load")
    waiting: deque = deque()
    held = 0
    try:
        for job, size in jobs:
            while waiting and held + size > AHEAD_BYTES:
                future, before = waiting.popleft()
                yield future.result()
                held -= before
                del future  # it keeps its result
            waiting.append((pool.submit(job), size))
            held += size
        while waiting:
            yield waiting.popleft()[0].result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Updater(NamedTuple):
    parts: Callable
    empty: Callable
    put: Callable


@cache
def _updater(
    kind: str | None, targets: tuple[tuple[str, Sharding], ...], final: Sharding
) -> _Updater:
    """Programs that bring a unit into its final shards, encode it and put it among the layers."""
    shardings = dict(targets)

    def parts(unit: Array) -> dict[str, Array]:
        unit = jax.lax.with_sharding_constraint(unit, final)
        return encode(unit, kind) if kind else {"": unit}

    def empty(unit: Array, count: int) -> dict[str, Array]:
        shapes = jax.eval_shape(parts, unit)
        return {
            n: jnp.zeros((count * x.shape[0], *x.shape[1:]), x.dtype) for n, x in shapes.items()
        }

    def put(stacked: dict[str, Array], unit: Array, start: Array | int) -> dict[str, Array]:
        return {
            name: jax.lax.dynamic_update_slice_in_dim(stacked[name], x, start, 0)
            for name, x in parts(unit).items()
        }

    return _Updater(
        jax.jit(parts, out_shardings=shardings),
        jax.jit(empty, static_argnums=1, out_shardings=shardings),
        jax.jit(put, donate_argnums=0, out_shardings=shardings),
    )


def _shards(sharding: Sharding, shape: tuple[int, ...]) -> dict[tuple[tuple[int, int], ...], list]:
    """Bounds of a shard -> the devices of this host that hold it: they read it once."""
    devices: dict[tuple[tuple[int, int], ...], list] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        bounds = tuple(s.indices(n)[:2] for s, n in zip(index or (), shape, strict=True))
        devices.setdefault(bounds, []).append(device)
    return devices


def shard_bytes(sharding: Sharding, shape: tuple[int, ...], itemsize: int) -> int:
    """Bytes of the different shards of an array on this host."""
    return sum(_size(bounds) * itemsize for bounds in _shards(sharding, shape))


def _slices(bounds: Iterable[tuple[int, int]]) -> Index:
    return tuple(slice(*b) for b in bounds)


def _size(bounds: Iterable[tuple[int, int]]) -> int:
    return math.prod(stop - start for start, stop in bounds)
