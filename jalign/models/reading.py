"""The parameters of a model from an open checkpoint, each by the way that suits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax import Array, ShapeDtypeStruct
from jax.sharding import Sharding

from jalign.models.keys import Entry, reader
from jalign.models.safetensors_io import Checkpoint
from jalign.models.streaming import Progress, Stream, by_shard, shard_bytes, stream
from jalign.parallel import hosts

Shardings = Mapping[str, Sharding]
"""Path of a parameter -> its sharding."""


def read_parameters(
    plan: Sequence[Entry],
    checkpoint: Checkpoint,
    named: Callable[[str], str],
    parameters: Mapping[str, ShapeDtypeStruct],
    plain: Shardings,
    final: Shardings,
    *,
    quant: str | None,
    progress: Progress | None,
) -> dict[str, Array]:
    """Path -> array of every parameter of a plan; for a quantized matrix, of its codes and scales.

    Args:
      named: table name -> name in the checkpoint.
      parameters: the shapes and dtypes before quantization.
      plain, final: the shardings before quantization, and after it.

    Raises:
      ValueError: naming every tensor with values that are not finite, or the processes do not read
        the same files.
      OSError: files in a bucket were replaced while they were read.
    """
    here = all(sharding.is_fully_addressable for sharding in plain.values())
    if together := checkpoint.remote and not here:
        hosts.check_processes_agree(f"the files of {checkpoint.address}", checkpoint.stored)
    broken: set[str] = set()
    direct: dict[str, tuple[tuple[int, ...], Sharding, Callable[..., np.ndarray]]] = {}
    streams: dict[str, Stream] = {}
    for entry in plan:
        for part in entry.parts:
            path, leaf = part.path, parameters[part.path]
            read = reader(entry, part, leaf.dtype, checkpoint.read, named, broken)
            prefix = f"{path}.parts."
            codes = {p.removeprefix(prefix): s for p, s in final.items() if p.startswith(prefix)}
            if not (codes or checkpoint.remote):
                direct[path] = leaf.shape, plain[path], read
                continue
            stack = len(entry.stack)
            streams[path] = Stream(
                leaf.shape,
                np.dtype(leaf.dtype),
                stack,
                plain[path],
                major=len(leaf.shape) - 1 if entry.row.transposed else stack,
                read=read,
                kind=quant if codes else None,
                targets=codes or {"": final[path]},
            )
    total = sum(s.read_bytes for s in streams.values())
    total += sum(
        shard_bytes(sharding, shape, np.dtype(parameters[path].dtype).itemsize)
        for path, (shape, sharding, _) in direct.items()
    )
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    arrays = {path: by_shard(*args, advance) for path, args in direct.items()}
    for path, parts in zip(streams, stream(streams.values(), advance), strict=True):
        arrays |= {f"{path}.parts.{name}" if name else path: x for name, x in parts.items()}
    _check_unchanged(checkpoint, together)
    # Raised once all have been read, so that one error names every tensor.
    if broken:
        where = checkpoint.address
        raise ValueError(f"{where}: weights that are not finite: {', '.join(sorted(broken))}")
    return arrays


def _check_unchanged(checkpoint: Checkpoint, together: bool) -> None:
    """Objects of equal size would mix two models, and no range that was read would tell."""
    if changed := hosts.call_on_main(checkpoint.changed) if together else checkpoint.changed():
        raise OSError(
            f"{checkpoint.address} changed while its weights were read: {', '.join(changed)}. The "
            "same command reads them again"
        )
