"""Numbers that come with examples, stacked to arrays beside the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jalign.data.examples import Example


class Field(NamedTuple):
    """How an extra becomes an array.

    Attributes:
      axes: letters of the axes behind [B]: "" one number per example, "K" one per response, "KR"
        one per scored token, "A" as many as every example of the data set has.
      dtype: int32, float32 or bool.
      width: A.
    """

    axes: str
    dtype: type
    width: int = 0

    def shape(self, responses: int, most: int) -> tuple[int, ...]:
        """Sizes of the axes behind [B], with K responses of at most R scored tokens."""
        sizes = {"K": responses, "R": most, "A": self.width}
        return tuple(sizes[axis] for axis in self.axes)


_KINDS = {"b": np.bool_, "i": np.int32, "u": np.int32, "f": np.float32}
_INFERRED = ("", "K", "KR")
AXES = {"step_labels": "KR", "attribute_ratings": "A"}
"""Axes of extras whose shape does not tell them. With one response [length] stands for [1, length]
of "KR"."""


def fields_of(examples: Sequence[Example]) -> dict[str, Field]:
    """The extras of examples as fields of a batch; 64-bit numbers become 32-bit.

    With one response, [length] stands for [1, length] unless every length is 1.

    Raises:
      ValueError: an extra that is neither a scalar, nor [k], nor [k, scored tokens] numbers, or
        one of `AXES` in another shape.
    """
    fields: dict[str, Field] = {}
    for example in examples:
        k = len(example.responses)
        for name, value in example.extras.items():
            value = np.asarray(value)
            kind = _KINDS.get(value.dtype.kind)
            axes = AXES.get(name) or _axes(value, k)
            if kind is None or axes is None:
                raise ValueError(
                    f"extra {name!r} is {value.dtype} {value.shape}; it must be numbers: a scalar, "
                    f"one per response [{k}], or one per scored token [{k}, length]"
                )
            width = value.size if axes == "A" else 0
            if name in fields:
                axes = max(axes, fields[name].axes, key=len)
            fields[name] = Field(axes, kind, width)
    return fields


def _axes(value: np.ndarray, k: int) -> str | None:
    """What the shape says; None where it fits nothing."""
    number = 2 if k == 1 and value.ndim == 1 and len(value) != 1 else value.ndim
    if number > 2 or (number and k > 1 and len(value) != k):
        return None
    return _INFERRED[number]


def collate(
    examples: Sequence[Example | None], fields: Mapping[str, Field], responses: int, most: int
) -> dict[str, np.ndarray]:
    """Stacks extras to [B], [B, K], [B, K, R] or [B, A]; missing examples (None), responses and
    tokens hold 0.

    Args:
      examples: B of them.
      fields: what to stack.
      responses: K.
      most: R.
    """
    size = len(examples)
    out = {n: np.zeros((size, *f.shape(responses, most)), f.dtype) for n, f in fields.items()}
    for b, example in enumerate(examples):
        if example is None:
            continue
        for name, field in fields.items():
            value = np.asarray(example.extras[name])
            if field.axes == "KR":
                # What lies beyond R belongs to no scored token: a cache is as wide as the longest.
                value = np.atleast_2d(value)[:, :most]
            if value.ndim != len(field.axes) or (field.axes == "A" and len(value) != field.width):
                raise ValueError(
                    f"extra {name!r} is {value.shape} here and of the axes [{field.axes}]"
                    f"{f' of {field.width}' if field.width else ''} elsewhere"
                )
            out[name][(b, *(slice(n) for n in value.shape))] = value
    return out
