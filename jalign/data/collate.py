"""Numbers that come with examples, stacked to arrays beside the tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jalign.data.examples import Example


class Field(NamedTuple):
    """How an extra becomes an array.

    Attributes:
      axes: 0 for [B], 1 for [B, K] (one value per response), 2 for [B, K, R] (per scored token).
      dtype: int32, float32 or bool.
    """

    axes: int
    dtype: type


_KINDS = {"b": np.bool_, "i": np.int32, "u": np.int32, "f": np.float32}


def fields_of(examples: Sequence[Example]) -> dict[str, Field]:
    """The extras of examples as fields of a batch; 64-bit numbers become 32-bit.

    With one response, [length] stands for [1, length] unless every length is 1.

    Raises:
      ValueError: an extra that is neither a scalar, nor [k], nor [k, scored tokens] numbers.
    """
    fields: dict[str, Field] = {}
    for example in examples:
        k = len(example.responses)
        for name, value in example.extras.items():
            value = np.asarray(value)
            axes = 2 if k == 1 and value.ndim == 1 and len(value) != 1 else value.ndim
            if value.dtype.kind not in _KINDS or axes > 2 or (axes and k > 1 and len(value) != k):
                raise ValueError(
                    f"extra {name!r} is {value.dtype} {value.shape}; it must be numbers: a scalar, "
                    f"one per response [{k}], or one per scored token [{k}, length]"
                )
            axes = max(axes, fields[name].axes if name in fields else 0)
            fields[name] = Field(axes, _KINDS[value.dtype.kind])
    return fields


def collate(
    examples: Sequence[Example | None], fields: Mapping[str, Field], responses: int, most: int
) -> dict[str, np.ndarray]:
    """Stacks extras to [B], [B, K] or [B, K, R]; missing examples (None), responses, tokens hold 0.

    Args:
      examples: B of them.
      fields: what to stack.
      responses: K.
      most: R.
    """
    sizes = (len(examples), responses, most)
    out = {name: np.zeros(sizes[: 1 + f.axes], f.dtype) for name, f in fields.items()}
    for b, example in enumerate(examples):
        if example is None:
            continue
        for name, field in fields.items():
            value = np.asarray(example.extras[name])
            if field.axes == 2:
                # What lies beyond R belongs to no scored token: a cache is as wide as the longest.
                value = np.atleast_2d(value)[:, :most]
            if value.ndim != field.axes:
                raise ValueError(
                    f"extra {name!r} is {value.shape} here and has {field.axes} axes elsewhere"
                )
            out[name][(b, *(slice(n) for n in value.shape))] = value
    return out
