"""Digests that identify a reward: the code of a function, the text of a template."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jalign.rewards.resolve import find
from jalign.rewards.rules import RULES
from jalign.user_code import digest, digest_of_files, source_files


def function_digest(name: str, fn: Callable[..., object] | None = None) -> str:
    """Digest of the source files of a reward function: the one in its name and the one that defines
    it. Their imports are not included.

    Args:
      name: as in `jalign.rewards.resolve.find`. A built-in rule is identified by its name.
      fn: the function, if it was passed as an object.

    Raises:
      ValueError, TypeError: as `find`.
    """
    # Not the digest of rules.py: an edit of one rule would refuse to resume runs of others.
    if fn is None and name in RULES:
        return f"jalign:{name}"
    inner = fn or find(name)
    while isinstance(inner, partial):
        inner = inner.func
    inner = inspect.unwrap(inner)
    where = name.rpartition(":")[0]
    files = set()
    if fn is None and where.endswith(".py"):
        files.add(Path(where).expanduser().absolute())
    # A module may re-export the function: both files decide what it is.
    if fn is None and where in sys.modules:
        files |= source_files(sys.modules[where])
    # An object with __call__ is defined where its class is.
    files |= source_files(inner) or source_files(type(inner))
    if files:
        return digest_of_files(files)
    try:  # of a notebook
        return digest(inspect.getsource(inner).encode())
    except (OSError, TypeError):
        return f"unknown:{getattr(inner, '__qualname__', type(inner).__qualname__)}"


def template_digests(options: Mapping[str, Any]) -> dict[str, str]:
    """option -> digest of the file that it names; built-in templates have none."""
    files = {n: Path(x).expanduser() for n, x in options.items() if str(x).endswith(".txt")}
    return {name: digest(path.read_bytes()) for name, path in files.items() if path.is_file()}
