"""User code by name: `package.module:name` is imported from installed packages or the working
folder, `file.py:name` is read from that file. Both run the user's code.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import itertools
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from jalign.signatures import did_you_mean


def attribute(text: str, what: str = "function", fits: Callable[[Any], bool] = callable) -> Any:
    """The object that `file.py:name` or `package.module:name` refers to.

    Args:
      what: kind of object, for errors.
      fits: whether an object is of this kind.

    Raises:
      ValueError: no such file, module or name; names the nearest.
      TypeError: the object is of another kind.
    """
    where, _, name = text.rpartition(":")
    if where == HERE:
        if text not in _HERE:
            raise ValueError(
                f"{name} is a {what} that another process was given as it is; write it to a file "
                f"and name it FILE.py:{name}"
            )
        return _HERE[text]
    try:
        module = _file(Path(where).expanduser()) if where.endswith(".py") else _module(where)
    except SystemExit as error:  # else the process would end as if it had succeeded
        raise ValueError(
            f"{where} ends the process while it is read (exit code {error.code!r}); what it does "
            "as a program belongs under: if __name__ == '__main__'"
        ) from error
    value = getattr(module, name, None)
    if value is None:
        own = [n for n, x in vars(module).items() if fits(x) and not n.startswith("_")]
        raise ValueError(f"{where} has no {what} {name!r}{did_you_mean(name, own)}")
    if not fits(value):
        article = "an" if what[0] in "Aa" else "a"
        raise TypeError(f"{text} must be {article} {what}, it is {value!r:.80}")
    return value


_HERE: dict[str, Any] = {}
HERE = "here"


def name_of(value: object, stem: str = "") -> str:
    """A name that `attribute` resolves in this process, for an object that is not in a file.

    Args:
      stem: of the name; by default the object's own name.
    """
    stem = stem or getattr(value, "__name__", type(value).__name__)
    names = (f"{HERE}:{stem}{'' if n == 1 else n}" for n in itertools.count(1))
    name = next(name for name in names if _HERE.get(name, value) == value)
    _HERE[name] = value
    return name


def absolute(text: str) -> str:
    """The name with the absolute path of its file, valid from any folder."""
    where, colon, name = text.rpartition(":")
    if not where.endswith(".py"):
        return text
    return f"{Path(where).expanduser().absolute()}{colon}{name}"


def source_files(*functions: Callable) -> set[Path]:
    """Source files of functions, also inside partials and decorators; none for C functions and
    interactive ones. Imports of those files are not included.
    """
    files = set()
    for fn in functions:
        while isinstance(fn, partial):
            fn = fn.func
        try:
            path = Path(inspect.getsourcefile(inspect.unwrap(fn)) or "")
        except TypeError:
            continue
        files |= {path.absolute()} if path.is_file() else set()
    return files


def digest(*parts: bytes) -> str:
    """16 hexadecimal digits of SHA-256."""
    lengths = b",".join(str(len(part)).encode() for part in parts)
    return hashlib.sha256(b":".join((lengths, *parts))).hexdigest()[:16]


def digest_of_files(files: Iterable[Path]) -> str:
    """The digest of the contents of files, in any order."""
    return digest(*sorted(path.read_bytes() for path in files))


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if not {here, ""} & set(sys.path):  # last: installed packages have priority
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists, one of its imports does not
        above, _, last = error.name.rpartition(".")
        path = getattr(importlib.import_module(above), "__path__", []) if above else None
        near = did_you_mean(last, {m.name for m in pkgutil.iter_modules(path)}) if last else ""
        near = near if "did you mean" in near else ""  # not a list of all modules
        raise ValueError(f"no module {error.name!r}{near}") from error


def _file(path: Path) -> ModuleType:
    """The module of a file, read once for each version of it."""
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ValueError(f"no file {path}{did_you_mean(path.name, siblings)}")
    version = f"{path.resolve()} {path.stat().st_mtime_ns}"
    name = f"_user_{path.stem}_{hashlib.sha256(version.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module there while the file runs
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
