"""Stack the extra columns of examples into arrays of the batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from jalign.data.examples import Examples


class Field(NamedTuple):
    """How an extra becomes an array.

    Attributes:
      axes: letters of the axes behind [B]: "" one number per example, "K" one per response, "KR"
        one per scored token, "A" as many as every example of the data set has, "KRA" as many per
        scored token.
      dtype: int32, float32 or bool.
      width: A.
    """

    axes: str
    dtype: type
    width: int = 0

    def shape(self, responses: int, response_len: int) -> tuple[int, ...]:
        """Sizes of the axes behind [B], with K responses of at most R scored tokens."""
        sizes = {"K": responses, "R": response_len, "A": self.width}
        return tuple(sizes[axis] for axis in self.axes)


# 32 bits, like everything on the device: jax would truncate 64-bit arrays there, with a warning
_DTYPES = {"b": np.bool_, "i": np.int32, "u": np.int32, "f": np.float32}
_INFERRED = ("", "K", "KR")
AXES = {"step_labels": "KR", "attribute_ratings": "A"}
"""Axes of extras whose shape is ambiguous. With one response, [length] means [1, length]."""


def fields_of(examples: Examples, indices: Iterable[int]) -> dict[str, Field]:
    """The extras of some examples as fields of a batch; 64-bit numbers become 32-bit.

    With one response, [length] means [1, length] unless every length is 1.

    Raises:
      ValueError: an extra that is neither a scalar, nor [k], nor [k, scored tokens] numbers, or
        one of `AXES` in another shape.
    """
    fields: dict[str, Field] = {}
    for i in indices:
        k = int(examples.first[i + 1] - examples.first[i]) - 1
        for name, values in examples.extras.items():
            value = np.asarray(values[i])
            dtype = _DTYPES.get(value.dtype.kind)
            axes = AXES.get(name) or _axes(value, k)
            if dtype is None or axes is None:
                raise ValueError(
                    f"extra {name!r} is {value.dtype} {value.shape}; it must be numbers: a scalar, "
                    f"one per response [{k}], or one per scored token [{k}, length]"
                )
            width = value.size if axes == "A" else 0
            # A value of one entry may be [K] or [K, R]; the other examples tell which.
            if name in fields:
                axes = max(axes, fields[name].axes, key=len)
            fields[name] = Field(axes, dtype, width)
    return fields


def _axes(value: np.ndarray, k: int) -> str | None:
    """Axes inferred from the shape of a value; None if no axes match."""
    rank = 2 if k == 1 and value.ndim == 1 and len(value) != 1 else value.ndim
    if rank > 2 or (rank and k > 1 and len(value) != k):
        return None
    return _INFERRED[rank]


def collate(examples: Examples, fields: Mapping[str, Field], out: Mapping[str, np.ndarray]) -> None:
    """Writes the extras of the examples `out["index"]` into arrays [B], [B, K], [B, K, R] or [B, A]
    of zeros; empty slots (-1), missing responses and tokens keep their 0.
    """
    for slot in np.flatnonzero(out["index"] >= 0):
        for name, field in fields.items():
            value = np.asarray(examples.extras[name][out["index"][slot]])
            if field.axes.startswith("KR"):
                # R is the longest response of this shape, a cached array as wide as the longest of
                # the data set: what lies beyond R belongs to no scored token.
                value = np.atleast_2d(value)[:, : out[name].shape[2]]
            wide = field.axes.endswith("A") and value.shape[-1:] != (field.width,)
            if value.ndim != len(field.axes) or wide:
                raise ValueError(
                    f"extra {name!r} is {value.shape} here and of the axes [{field.axes}]"
                    f"{f' of {field.width}' if field.width else ''} elsewhere"
                )
            out[name][(slot, *(slice(n) for n in value.shape))] = value
