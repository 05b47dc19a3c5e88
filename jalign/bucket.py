"""Model folders in a bucket (gs://, s3://): small files are copied to a local cache, and of weights
byte ranges are read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import fsspec
import numpy as np

from jalign import store
from jalign.signatures import nearest

PIECE_BYTES, REQUESTS = 8 * 2**20, 16
"""Size of a range request, and how many are in flight at most: 128 MiB."""

_COPIED = (".json", ".jinja", ".txt", ".model")
_LISTING = ".bucket.json"  # in a copy: where it is from, and what was there
# What the stores call the identity of an object's content.
_VERSIONS = ("ETag", "etag", "generation", "md5Hash", "LastModified")

Result = TypeVar("Result")


class Stored(NamedTuple):
    """An object of a folder in a bucket.

    Attributes:
      size: bytes.
      version: changes with its content.
    """

    size: int
    version: str


class Copied(NamedTuple):
    """A local copy of the small files of a folder in a bucket.

    Attributes:
      address: of the folder in the bucket.
      objects: name -> all files of the folder, the large ones included.
    """

    address: str
    objects: dict[str, Stored]


def local_folder(name: str | os.PathLike[str]) -> Path | None:
    """The local folder of a model or tokenizer: of one in a bucket a copy of its small files; None
    for a name on the hub, which has at most one slash and begins with none.

    Raises:
      ValueError: a path that is no folder here; the nearest one is named.
    """
    if store.is_remote(name):
        return local_copy(name)
    folder, text = Path(name).expanduser(), str(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"{name} is a file; a model is the folder with its config.json")
    # the hub would refuse a path with a word about the form of its names
    if text.startswith((".", "/", "~")) or text.count("/") > 1:
        siblings = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ValueError(f"no folder {name}{nearest(folder.name, siblings)}")
    return None


def local_copy(address: str | os.PathLike[str]) -> Path:
    """A local folder with the small files of a folder in a bucket; what has changed since the last
    call is copied again. `copied` of it names the large files.

    Raises:
      ValueError: an unknown store, its library is missing, or the folder cannot be read or is
        empty; the address is named.
    """
    address = os.fspath(address).rstrip("/")
    store.as_path(address)  # refuses what is no bucket
    folder = _root() / hashlib.sha256(address.encode()).hexdigest()[:16] / address.split("/")[-1]
    objects = _objects(address)
    before = copied(folder)
    if before and before.objects == objects:
        return folder
    known = before.objects if before else {}
    wanted = [name for name in objects if name.endswith(_COPIED) and not name.startswith(".")]
    stale = [n for n in wanted if known.get(n) != objects[n] or not (folder / n).is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    # Never without a listing, which other processes may be reading. What is copied now enters it
    # last: a copy that is killed here must not pass for one of the objects of before or after.
    _list(folder, address, {n: x for n, x in objects.items() if n not in stale})
    urls = [f"{address}/{name}" for name in stale]
    for name, content in zip(stale, _pool().map(_content, urls), strict=True):
        _replace(folder / name, content)
    for path in folder.iterdir():
        if path.name.endswith(_COPIED) and path.name not in objects and path.name[0] != ".":
            path.unlink(missing_ok=True)
    _list(folder, address, objects)
    return folder


def copied(folder: str | os.PathLike[str]) -> Copied | None:
    """What a folder was copied from by `local_copy`; None for any other folder."""
    folder = Path(folder)
    # A listing elsewhere may be a stranger's, who would have this host read buckets.
    if folder.parent.parent != _root() or not (folder / _LISTING).is_file():
        return None
    listing = json.loads((folder / _LISTING).read_text())
    objects = {name: Stored(*values) for name, values in listing["objects"].items()}
    return Copied(listing["address"], objects)


def named(folder: str | os.PathLike[str]) -> str:
    """The address of a copy's folder in its bucket, for messages; of any other folder its path."""
    source = copied(folder)
    return source.address if source else os.fspath(folder)


def changed(source: Copied, names: Iterable[str]) -> list[str]:
    """Those of these files of a folder in a bucket that are no longer the ones in its listing."""
    now = _objects(source.address)
    return [name for name in names if now.get(name) != source.objects[name]]


def read_range(url: str, start: int, stop: int) -> np.ndarray:
    """Bytes start to stop of an object, uint8, by several requests at once if they are many.

    Raises:
      OSError: naming the object; the store's library has retried by then.
    """
    fs, path = fsspec.url_to_fs(url)
    out = np.empty(stop - start, np.uint8)

    def piece(at: int) -> None:
        part = out[at : at + PIECE_BYTES]
        first = start + at
        data = _named(url, lambda: fs.cat_file(path, start=first, end=first + len(part)))
        if len(data) != len(part):
            raise OSError(f"{url} ended at byte {first + len(data)}: it changed while it was read")
        part[:] = np.frombuffer(data, np.uint8)

    if len(out) <= PIECE_BYTES:
        piece(0)
    else:
        list(_pool().map(piece, range(0, len(out), PIECE_BYTES)))
    return out


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(REQUESTS, "jalign-range")


def _root() -> Path:
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache_home) / "jalign" / "buckets"


def _objects(address: str) -> dict[str, Stored]:
    fs, root = fsspec.url_to_fs(address)
    infos: list[dict[str, Any]] = []
    with suppress(FileNotFoundError), store.reading(address):
        infos = fs.ls(root, detail=True)
    files = [info for info in infos if info["type"] == "file" and not info["name"].endswith("/")]
    if not files:
        raise ValueError(f"{address} has no objects: a model is the folder with its config.json")
    return {
        info["name"].rsplit("/", 1)[-1]: Stored(
            int(info["size"]), next((str(info[key]) for key in _VERSIONS if key in info), "")
        )
        for info in files
    }


def _list(folder: Path, address: str, objects: dict[str, Stored]) -> None:
    listing = {"address": address, "objects": objects}
    _replace(folder / _LISTING, json.dumps(listing).encode())


def _content(url: str) -> bytes:
    fs, path = fsspec.url_to_fs(url)
    return _named(url, lambda: fs.cat_file(path))


def _named(url: str, request: Callable[[], Result]) -> Result:
    """The result of a request, whose errors name the object."""
    try:
        return request()
    except Exception as error:  # every library has its own
        raise OSError(f"{url} cannot be read ({type(error).__name__}: {error})") from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file that other processes of this host may be reading or writing."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.write_bytes(content)
    temporary.replace(path)
