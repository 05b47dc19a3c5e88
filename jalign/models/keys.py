"""Map checkpoint tensors to parameters and back by a family's key table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jalign.models.families.base import Family, Row
from jalign.parallel.hosts import gather

HEAD, SCORE = "lm_head.weight", "score.weight"

Shapes = Mapping[str, tuple[int, ...]]


class Part(NamedTuple):
    """A parameter and its offset in its tensors along the output axis (our last)."""

    path: str
    shape: tuple[int, ...]  # without the layer axis
    offset: int


class Entry(NamedTuple):
    """A row of the key table that applies to a model."""

    row: Row
    parts: tuple[Part, ...]
    layers: int | None  # None: one tensor, not one per layer

    @property
    def names(self) -> list[str]:
        return [self.row.theirs.format(i) for i in range(self.layers or 1)]

    @property
    def shape(self) -> tuple[int, ...]:
        *inputs, _ = self.parts[0].shape
        shape = (*inputs, sum(part.shape[-1] for part in self.parts))
        return shape[::-1] if self.row.transposed else shape


def entries(family: Family, shapes: Shapes) -> list[Entry]:
    """The rows of the family's table that apply to parameters of these paths and shapes."""
    table, left = [], set(shapes)
    for row in family.rows:
        if row.ours[0] not in shapes:
            continue
        layers = shapes[row.ours[0]][0] if "{}" in row.theirs else None
        parts, offset = [], 0
        for path in row.ours:
            shape = shapes[path] if layers is None else shapes[path][1:]
            parts.append(Part(path, shape, offset))
            offset += shape[-1]
            left.discard(path)
        table.append(Entry(row, tuple(parts), layers))
    assert not left, f"no row of {family.model_type} holds {sorted(left)}"
    return table


def namer(family: Family, shapes: Shapes) -> Callable[[str], str]:
    """Table name -> name in this checkpoint: one saved from the bare transformer lacks the
    family's prefix.
    """
    if any(name.startswith(family.prefix) for name in shapes):
        return lambda name: name
    return lambda name: name.removeprefix(family.prefix)


def check(
    family: Family, plan: list[Entry], shapes: Shapes, named: Callable[[str], str], headless: bool
) -> None:
    """Check that a checkpoint's tensors are exactly those of the plan; for a `headless` model an
    unembedding is allowed too.

    Raises:
      ValueError: naming every tensor that is missing, unexpected or of another shape.
    """
    expected = {named(name): entry.shape for entry in plan for name in entry.names}
    ignored = [re.compile(pattern) for pattern in family.ignored]
    missing = sorted(expected.keys() - shapes.keys())
    extra = sorted(
        name
        for name in shapes.keys() - expected.keys()
        if not (headless and name == HEAD) and not any(p.fullmatch(name) for p in ignored)
    )
    other = [
        f"{name} is {list(shapes[name])}, should be {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in shapes and shapes[name] != shape
    ]
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"unexpected: {', '.join(extra)}"] if extra else []
    problems += [f"wrong shape: {'; '.join(other)}"] if other else []
    if SCORE in extra:
        problems.append(
            "it is a sequence-classification model, such as a reward model: its scalar head is "
            "what value_head=True loads"
        )
    if problems:
        raise ValueError(f"these weights do not fit their config: {'. '.join(problems)}")


def reader(
    entry: Entry,
    part: Part,
    dtype: np.dtype,
    read: Callable[[str, tuple[slice, ...]], np.ndarray],
    named: Callable[[str], str],
    broken: set[str],
) -> Callable[[Any], np.ndarray]:
    """Index of a shard of our parameter -> its values, for `jax.make_array_from_callback`.

    Args:
      read: (name, slices) -> values of a tensor.
      broken: names of tensors with values that are not finite are added here.
    """
    shape = part.shape if entry.layers is None else (entry.layers, *part.shape)
    done: dict[tuple, np.ndarray] = {}  # devices with the same shard read it once

    def one(name: str, bounds: tuple[tuple[int, int], ...]) -> np.ndarray:
        start, stop = bounds[-1]
        slices = [slice(*b) for b in bounds[:-1]] + [slice(start + part.offset, stop + part.offset)]
        values = read(name, tuple(slices[::-1] if entry.row.transposed else slices))
        # safetensors loads NaN without an error.
        if not np.isfinite(values).all():
            broken.add(name)
        return values.T if entry.row.transposed else values

    def callback(index: tuple[slice, ...]) -> np.ndarray:
        bounds = tuple(s.indices(size)[:2] for s, size in zip(index, shape, strict=True))
        if bounds not in done:
            # One tensor at a time into its slot: stacking would hold every layer twice.
            out = np.empty([stop - start for start, stop in bounds], dtype)
            if entry.layers is not None:
                for i in range(*bounds[0]):
                    out[i - bounds[0][0]] = one(named(entry.row.theirs.format(i)), bounds[1:])
            else:
                out[...] = one(named(entry.row.theirs), bounds)
            done[bounds] = out
        return done[bounds]

    return callback


def tensors(
    plan: list[Entry], leaves: Mapping[str, jax.Array], dtype: np.dtype
) -> Iterator[tuple[str, np.ndarray]]:
    """The named tensors of a checkpoint, one at a time on the host. On several hosts all must
    iterate together.
    """
    for entry in plan:
        for i, name in enumerate(entry.names):
            parts = [leaves[part.path] for part in entry.parts]
            parts = [gather(x if entry.layers is None else x[i]) for x in parts]
            value = np.concatenate(parts, axis=-1).astype(dtype)
            yield name, np.ascontiguousarray(value.T if entry.row.transposed else value)
