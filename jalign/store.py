"""Storage of a run's files: a folder on disk, or a prefix in a bucket (gs://, s3://).

An object store has no folders, no append and no rename, and writes of objects are atomic. So files
are written in one piece, growing files are written on local disk and uploaded with checkpoints, and
folders are moved by copying their objects inside the store.
"""

import errno
import fcntl
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO
from uuid import uuid4

import fsspec
import fsspec.config
from etils import epath

log = logging.getLogger(__name__)

StorePath = Path | epath.Path
"""A folder or file of a run, on disk or in a store."""

_LIBRARIES = {"gs": "gcsfs", "s3": "s3fs"}
_EXTRAS = {"gs": "gcs", "s3": "s3"}


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether this is a path in an object store."""
    return "://" in os.fspath(path)


def as_path(name: str | os.PathLike[str]) -> StorePath:
    """The folder or file of this name: a `Path`, or its counterpart in a store (`epath`).

    Raises:
      ValueError: a store that is not known, no bucket, or the library for the store is missing.
    """
    text = os.fspath(name)
    if not is_remote(text):
        return Path(text).expanduser()
    scheme, _, rest = text.partition("://")
    if scheme not in _LIBRARIES:
        stores = ", ".join(f"{known}://" for known in _LIBRARIES)
        raise ValueError(f"{text}: runs are kept in a folder, or in one of {stores}")
    if not rest.split("/")[0]:
        raise ValueError(f"{text} names no bucket: {scheme}://BUCKET/RUN")
    if find_spec(_LIBRARIES[scheme]) is None:
        raise ValueError(
            f"{text}: {scheme}:// needs {_LIBRARIES[scheme]}, which is not installed: "
            f"pip install 'jalign[{_EXTRAS[scheme]}]'"
        )
    _set_up()
    return epath.Path(text)


@cache
def _set_up() -> None:
    # TensorFlow, where it is installed, would be taken instead of the libraries named above
    os.environ.setdefault("EPATH_USE_TF", "false")
    for protocol in ("gcs", "gs", "s3"):  # other processes and tensorstore write there, too
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)


@contextmanager
def reading(address: str) -> Iterator[None]:
    """Errors of a store's library, each of which has its own, become one that names the address.

    Raises:
      ValueError: the folder cannot be read: no bucket, or no credentials.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{address} cannot be read ({type(error).__name__}: {error}). The bucket must exist, "
            "and the store's usual credentials must be set"
        ) from error


def local(name: str | os.PathLike[str], what: str) -> Path:
    """The path of a file or folder that must be on local disk.

    Raises:
      ValueError: it is in an object store.
    """
    if is_remote(name):
        raise ValueError(f"{what} must be on local disk, got {name}")
    return Path(name)


def check_writable(folder: StorePath) -> None:
    """Refuse a run that could not be saved. In a bucket a test object is written and deleted; on
    disk nothing is written.

    Raises:
      ValueError: the bucket does not exist, nothing may be written there, or the folder, or one
        that it is to be made in, is a file.
      OSError: its disk is read-only.
    """
    if not is_remote(folder):
        _check_on_disk(Path(folder).expanduser().absolute())
        return
    probe = folder / f".writable-{uuid4().hex}"  # several processes ask at once
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except Exception as error:  # every library has its own
        kind = type(error).__name__
        raise ValueError(
            f"{folder} cannot be written to ({kind}: {error}). The bucket must exist, and the "
            "store's usual credentials must be set"
        ) from error


def _check_on_disk(folder: Path) -> None:
    there = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not there.is_dir():
        what = "is no folder" if there == folder else f"cannot be made: {there} is no folder"
        raise ValueError(f"{folder} {what}; choose another place for the run")
    if os.statvfs(there).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(
            f"{folder} cannot be written to: {there} belongs to somebody else, or is write-"
            "protected; choose another place for the run"
        )


@contextmanager
def lock_folder(folder: StorePath) -> Iterator[None]:
    """Lock a folder against other processes of this host. The lock ends with the process, however
    it ends; object stores, and file systems without locks, are not locked.

    Raises:
      ValueError: another process holds it.
    """
    if is_remote(folder):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        lock(file, f"another run is writing to {folder}")
        yield


def lock(file: IO, refusal: str) -> None:
    """Keep other processes of this host from locking an open file until it is closed.

    Raises:
      ValueError: another process holds it.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{refusal}: wait until it has ended, stop it, or choose another place"
        ) from None
    except OSError as error:
        log.warning("%s cannot be locked against a second process (%s)", file.name, error)


def write(path: StorePath, fill: Callable[[IO[bytes]], object]) -> None:
    """Write or replace a file atomically; its content is on disk on return.

    Args:
      path: its folder is made.
      fill: writes the content.
    """
    if is_remote(path):
        content = io.BytesIO()  # the partial output of a failed `fill` must not become an object
        fill(content)
        path.write_bytes(content.getvalue())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())  # else a power cut leaves the name and no content
    except BaseException:
        temporary.unlink(missing_ok=True)  # a disk that is full needs the room
        raise
    temporary.replace(path)
    _sync_folder(Path(path.parent))


def _sync_folder(folder: Path) -> None:
    """Flush the new name to disk; file systems that do not support this do not need it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def move(folder: StorePath, target: StorePath, mark: str) -> None:
    """Rename a folder that contains a `mark` of completeness; an existing target is replaced.

    In a store the mark is the last object copied and the first deleted: after a kill at least
    one of folder and target is complete.
    """
    if not is_remote(folder):
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
        return
    fs, root = fsspec.url_to_fs(str(folder))
    if target.exists():
        fs.rm(str(target), recursive=True)
    objects = [name.removeprefix(f"{root}/") for name in fs.find(root)]
    rest = [name for name in objects if name != mark]
    fs.copy([f"{root}/{name}" for name in rest], [f"{target}/{name}" for name in rest])
    if mark in objects:
        fs.cp_file(f"{root}/{mark}", f"{target}/{mark}")
        fs.rm_file(f"{root}/{mark}")
    fs.rm(root, recursive=True)


class UploadQueue:
    """A local folder for growing files of a run; `put` uploads them to the store.

    Args:
      folder: of the run, in a store.
      fetch: names of files that continue the store's copies.
    """

    def __init__(self, folder: StorePath, *fetch: str):
        self.folder, self.local = folder, Path(tempfile.mkdtemp(prefix="jalign-"))
        self._stored: dict[Path, tuple[int, int]] = {}
        for name in fetch:
            if (folder / name).exists():
                (self.local / name).write_bytes((folder / name).read_bytes())

    def put(self) -> bool:
        """Upload changed files; on failure log an error and return False."""
        try:
            for file in sorted(p for p in self.local.rglob("*") if p.is_file()):
                now = (file.stat().st_size, file.stat().st_mtime_ns)
                if self._stored.get(file) != now:
                    target = self.folder / file.relative_to(self.local).as_posix()
                    target.write_bytes(file.read_bytes())
                    self._stored[file] = now
        except Exception as error:  # a failed upload must not end a run; the next one may succeed
            log.error("the record of the run was not written to %s: %s", self.folder, error)
            return False
        return True

    def close(self) -> None:
        """Upload for the last time; the local folder is deleted unless that failed."""
        if self.put():
            shutil.rmtree(self.local, ignore_errors=True)
        else:
            log.error("the record is kept in %s", self.local)
