"""Map checkpoint tensors to parameters and back by a family's key table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jalign.models.families.base import Family, Row
from jalign.models.spec import Spec
from jalign.parallel.hosts import gather

HEAD, SCORE = "lm_head.weight", "score.weight"

Shapes = Mapping[str, tuple[int, ...]]


class Part(NamedTuple):
    """A parameter and where it is in its tensors along the output axis (our last): at
    `offset + step * i`.
    """

    path: str
    shape: tuple[int, ...]  # without the stacked axes
    offset: int
    step: int


class Entry(NamedTuple):
    """A row of the key table that applies to a model."""

    row: Row
    parts: tuple[Part, ...]
    stack: tuple[int, ...]  # layers, or layers and experts, that have a tensor each
    layers: tuple[int, ...]  # the number of each of these layers

    @property
    def names(self) -> list[str]:
        return [self.name(index) for index in np.ndindex(self.stack)]

    def name(self, index: tuple[int, ...]) -> str:
        """Of the tensor at this index of the stack."""
        layer = (self.layers[i] for i in index[:1])
        return self.row.theirs.format(*layer, *index[1:])

    @property
    def shape(self) -> tuple[int, ...]:
        *inputs, _ = self.parts[0].shape
        shape = (*inputs, sum(part.shape[-1] for part in self.parts))
        return _turned(shape) if self.row.transposed else shape


def entries(family: Family, spec: Spec, shapes: Shapes) -> list[Entry]:
    """The rows of the family's table that apply to parameters of these paths and shapes."""
    table, left = [], set(shapes)
    for row in family.rows:
        if row.ours[0] not in shapes:
            continue
        stacked = row.theirs.count("{}")
        parts, offset = [], 0
        for i, path in enumerate(row.ours):
            shape = shapes[path][stacked:]
            parts.append(
                Part(path, shape, i, len(row.ours))
                if row.interleaved
                else Part(path, shape, offset, 1)
            )
            offset += shape[-1]
            left.discard(path)
        layers = layers_of(spec, row.ours[0]) if stacked else ()
        table.append(Entry(row, tuple(parts), shapes[row.ours[0]][:stacked], layers))
    assert not left, f"no row of {family.model_type} holds {sorted(left)}"
    return table


def layers_of(spec: Spec, path: str) -> tuple[int, ...]:
    """The numbers of the layers that a parameter of the stack is of."""
    return spec.layers_of(path.split(".")[1])


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
    """Index of a part of our parameter -> its values, which are new arrays or views of new ones.

    Args:
      read: (name, slices) -> values of a tensor.
      broken: names of tensors with values that are not finite are added here.
    """
    shape, stacked = (*entry.stack, *part.shape), len(entry.stack)

    def one(name: str, bounds: tuple[tuple[int, int], ...]) -> np.ndarray:
        start, stop = (part.step * b for b in bounds[-1])
        if part.step == 1:
            start, stop = start + part.offset, stop + part.offset
        slices = (*(slice(*b) for b in bounds[:-1]), slice(start, stop))
        values = read(name, _turned(slices) if entry.row.transposed else slices)
        # safetensors loads NaN without an error.
        if not _finite(values):
            broken.add(name)
        values = values.swapaxes(-1, -2) if entry.row.transposed else values
        return values if part.step == 1 else values[..., part.offset :: part.step]

    def values_of(index: tuple[slice, ...]) -> np.ndarray:
        bounds = tuple(s.indices(size)[:2] for s, size in zip(index, shape, strict=True))
        if not stacked:
            return one(named(entry.row.theirs), bounds).astype(dtype, copy=False)
        # One tensor at a time into its slot: stacking would hold every layer twice.
        out = np.empty([stop - start for start, stop in bounds], dtype)
        first = [start for start, _ in bounds[:stacked]]
        for slot in np.ndindex(out.shape[:stacked]):
            at = (i + j for i, j in zip(first, slot, strict=True))
            out[slot] = one(named(entry.name(tuple(at))), bounds[stacked:])
        return out

    return values_of


def _finite(values: np.ndarray) -> bool:
    """Whether all are, row by row: a mask of all of them would take half as much memory again."""
    rows = max(1, 2**22 // max(values[:1].size, 1))
    parts = (values[i : i + rows] for i in range(0, len(values), rows))
    return all(np.isfinite(part).all() for part in parts)


def _turned(axes: tuple[Any, ...]) -> tuple[Any, ...]:
    """With the last two exchanged."""
    return (*axes[:-2], *axes[:-3:-1])


def tensors(
    plan: list[Entry], leaves: Mapping[str, jax.Array], dtype: np.dtype
) -> Iterator[tuple[str, np.ndarray]]:
    """The named tensors of a checkpoint, one at a time on the host. On several hosts all must
    iterate together.
    """
    for entry in plan:
        for index, name in zip(np.ndindex(entry.stack), entry.names, strict=True):
            parts = [leaves[part.path] for part in entry.parts]
            parts = [gather(x[index] if index else x) for x in parts]
            if entry.row.interleaved:
                value = np.stack(parts, -1).reshape(*parts[0].shape[:-1], -1).astype(dtype)
            else:
                value = np.concatenate(parts, axis=-1).astype(dtype)
            yield (
                name,
                np.ascontiguousarray(value.swapaxes(-1, -2) if entry.row.transposed else value),
            )
