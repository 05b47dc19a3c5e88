"""Checkpoint folders of safetensors files: slices of tensors in, shards with an index out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jalign import bucket
from jalign.models.mxfp4 import Mxfp4, mxfp4_part
from jalign.models.safetensors_ranges import RangeFile

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Weights in F8 or integers come with scales, which a plain read would ignore.
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # bytes


class Checkpoint:
    """The tensors of a folder, read slice by slice. A context manager.

    Files on disk are memory-mapped; of a folder in a bucket (`jalign.bucket`) byte ranges are read.

    Args:
      named: a tensor's name in the file -> the name it is given here; None leaves it out.

    Attributes:
      shapes: name -> shape of every tensor.
      dtypes: name -> its type, one of `DTYPES`; of MXFP4 that of its scales and values, BF16.
      left_out: names, as in the files, of the tensors that were.
      remote: the files are in a bucket.
      address: of the folder, in the bucket if it is in one.
      stored: in a bucket, name -> version and size of every file that was opened.

    Raises:
      ValueError: no safetensors (pickles are never read), a damaged or missing file, an index that
        leaves the folder, or a type that is not a plain float.
    """

    def __init__(
        self, folder: str | os.PathLike, named: Callable[[str], str | None] = lambda name: name
    ):
        self.folder, self._named = Path(folder), named
        self._copied = bucket.copied(folder)
        self.remote, self.address = self._copied is not None, bucket.named(folder)
        self.stored: dict[str, bucket.Stored] = {}
        self.left_out: list[str] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self._slices: dict[str, Any] = {}
        self._packed: dict[str, dict[str, Any]] = {}
        self._stack = ExitStack()
        try:
            for name in self._files():
                self._open(name)
            for name, parts in self._packed.items():
                self._add(name, Mxfp4(name, **parts))
        # Ctrl-C included: mapped files must not stay open.
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._slices.clear()
        self._stack.close()

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of a tensor, in the type it is stored in."""
        return self._slices[name][index]

    def changed(self) -> list[str]:
        """The files in a bucket that were replaced after they were opened; the bucket is asked."""
        return bucket.changed(self._copied, self.stored) if self._copied else []

    def _files(self) -> list[str]:
        if (self.folder / INDEX).is_file():
            names = sorted(set(_weight_map(self.folder / INDEX).values()))
            # An index is not trusted: a name such as ../x would read other files of this host.
            outside = [n for n in names if Path(n).name != n or n in (".", "..")]
            if outside:
                raise ValueError(f"{INDEX} names files outside its folder: {', '.join(outside)}")
            return names
        if SINGLE in (there := self._there()):
            return [SINGLE]
        pickles = sorted(n for n in there if any(fnmatch(n, pattern) for pattern in PICKLES))
        hint = f"; {', '.join(pickles)} can run code when read and is refused" if pickles else ""
        raise ValueError(f"{self.address} has neither {SINGLE} nor {INDEX}{hint}")

    def _there(self) -> Collection[str]:
        return self._copied.objects if self._copied else [p.name for p in self.folder.iterdir()]

    def _file(self, file: str) -> Any:
        if file not in self._there():
            raise ValueError(f"{INDEX} names {file}, which is not in {self.address}")
        if self._copied:
            self.stored[file] = self._copied.objects[file]
            return RangeFile(f"{self._copied.address}/{file}", self.stored[file])
        try:
            return self._stack.enter_context(safe_open(self.folder / file, framework="np"))
        except SafetensorError as e:
            raise ValueError(f"{self.folder / file} is truncated or damaged: {e}") from None

    def _open(self, file: str) -> None:
        opened = self._file(file)
        for original in opened.keys():  # noqa: SIM118 - it is not a dict
            name = self._named(original)
            if name is None:
                self.left_out.append(original)
                continue
            if name in self.shapes:
                raise ValueError(f"tensor {name} is in {self.address} more than once")
            tensor = opened.get_slice(original)
            if part := mxfp4_part(name, tensor):
                self._packed.setdefault(name.removesuffix(f"_{part}"), {})[part] = tensor
                continue
            if tensor.get_dtype() not in DTYPES:
                allowed = ", ".join(DTYPES)
                raise ValueError(
                    f"tensor {name} is {tensor.get_dtype()}; weights must be {allowed}"
                )
            self._add(name, tensor)

    def _add(self, name: str, tensor: Any) -> None:
        self._slices[name] = tensor
        self.shapes[name] = tuple(tensor.get_shape())
        self.dtypes[name] = tensor.get_dtype()


def _weight_map(path: Path) -> dict[str, str]:
    try:
        return {str(k): str(v) for k, v in json.loads(path.read_text())["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"{path} is not an index of safetensors files: {e!r}") from None


def write_sharded(
    folder: Path, sizes: dict[str, int], tensors: Iterable[tuple[str, np.ndarray]], max_bytes: int
) -> None:
    """Write tensors to one file, or to several of at most `max_bytes` with an index; one file is
    in memory at a time.

    Args:
      folder: an existing folder; weights it holds under the same names are replaced.
      sizes: name -> bytes of every tensor, in the order of `tensors`.
    """
    files: list[list[str]] = [[]]
    total = 0
    for name, size in sizes.items():
        if files[-1] and total + size > max_bytes:
            files.append([])
            total = 0
        files[-1].append(name)
        total += size
    n = len(files)
    titles = (
        [SINGLE] if n == 1 else [f"model-{i:05}-of-{n:05}.safetensors" for i in range(1, n + 1)]
    )
    source = iter(tensors)
    for title, names in zip(titles, files, strict=True):
        write(folder / title, dict(next(source) for _ in names))
    # An index left from an earlier save would win over the new file.
    (folder / INDEX).unlink(missing_ok=True)
    if n > 1:
        where = {name: title for title, names in zip(titles, files, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def write(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write or replace one file, with the mode given by the umask."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode
    # transformers refuses files that do not name their format.
    save_file(tensors, path, metadata={"format": "pt"})  # 0.8 makes files private to their owner
    path.chmod(mode)
