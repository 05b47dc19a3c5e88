"""A safetensors file in a bucket, read by byte ranges.

The file is 8 bytes with the length of a header, the header (JSON: name -> dtype, shape and
data_offsets), and the tensors in row-major order (https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jalign.bucket import Stored, read_range

FIRST_BYTES = 2**18  # of the first request, which has the whole header of most files
MOST_HEADER_BYTES = 10**8  # safetensors' own limit
NUMPY = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16,
    "U8": np.uint8,
}  # fmt: skip


class RangeFile:
    """The tensors of a file, with the interface of `safetensors.safe_open`.

    Raises:
      ValueError: a header that is not one, or that does not fit the size of the object.
    """

    def __init__(self, url: str, stored: Stored):
        self._url = url
        self._start, self._header = _header(url, stored)

    def keys(self) -> list[str]:
        return list(self._header)

    def get_slice(self, name: str) -> RangeSlice:
        entry = self._header[name]
        start = self._start + entry["data_offsets"][0]
        return RangeSlice(self._url, start, tuple(entry["shape"]), entry["dtype"])


class RangeSlice(NamedTuple):
    """A tensor of a file, with the interface of safetensors' slices."""

    url: str
    start: int  # of its first byte in the file
    shape: tuple[int, ...]
    dtype: str

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        return self.dtype

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """A slice. The bytes that are read are one range: rows of the first axis of which it takes
        more than one index, with all that they hold.
        """
        full = (*index, *[slice(None)] * (len(self.shape) - len(index)))
        bounds = [s.indices(n)[:2] for s, n in zip(full, self.shape, strict=True)]
        kind = np.dtype(NUMPY[self.dtype])
        first, count, axis = 0, 1, -1
        for axis, (start, stop) in enumerate(bounds):
            inner = math.prod(self.shape[axis + 1 :])
            first, count = first + start * inner, (stop - start) * inner
            if stop - start != 1:
                break
        begin = self.start + first * kind.itemsize
        data = read_range(self.url, begin, begin + count * kind.itemsize).view(kind)
        rows = [stop - start for start, stop in bounds[: axis + 1]]
        rest = tuple(slice(*b) for b in bounds[axis + 1 :])
        return data.reshape(*rows, *self.shape[axis + 1 :])[(..., *rest)]


@cache
def _header(url: str, stored: Stored) -> tuple[int, dict[str, Any]]:
    """(first byte of the tensors, header); a model's files are opened several times."""
    begin = read_range(url, 0, min(stored.size, FIRST_BYTES)).tobytes()
    size = int.from_bytes(begin[:8], "little")
    if len(begin) < 8 or size > min(MOST_HEADER_BYTES, stored.size - 8):
        raise ValueError(
            f"{url} is truncated or damaged: its header does not fit {stored.size} bytes"
        )
    if 8 + size > len(begin):
        begin += read_range(url, len(begin), 8 + size).tobytes()
    try:
        header = json.loads(begin[8 : 8 + size])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            kind = NUMPY.get(entry["dtype"])  # others are refused where they are read
            expected = math.prod(entry["shape"]) * np.dtype(kind).itemsize if kind else stop - start
            if not (0 <= start <= stop <= stored.size - 8 - size and stop - start == expected):
                raise ValueError(f"the range of {name} does not fit its shape or the file")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{url} is truncated or damaged: {error}") from error
    return 8 + size, header
