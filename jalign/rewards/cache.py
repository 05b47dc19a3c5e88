"""On-disk cache of judge answers, keyed by the request."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


class DiskCache:
    """A folder with one JSON file per question, named by the question's hash.

    Files are written under a temporary name and then moved into place, so several runs can share a
    folder: a reader finds a complete answer or none, and the last of two writers wins.

    Args:
      folder: created if missing. Anyone who can write there can change the judge's answers.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).expanduser()
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, question: object) -> Any:
        """The answer; None if there is none, or its file is damaged or unreadable."""
        try:
            entry = json.loads(self._path(question).read_text("utf-8"))
            # The question is compared, not its hash alone: an edited or moved file is no answer.
            return entry["answer"] if entry["question"] == _plain(question) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, question: object, answer: object) -> None:
        """Store an answer. Both must be JSON values.

        Raises:
          OSError: it cannot be written, for example because the disk is full.
        """
        path = self._path(question)
        path.parent.mkdir(exist_ok=True)
        # In the same folder: os.replace is atomic only within one file system.
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"question": _plain(question), "answer": answer}, file)
            os.replace(temporary, path)
        # Ctrl-C, too, must leave no temporary file.
        except BaseException:
            os.unlink(temporary)
            raise

    def _path(self, question: object) -> Path:
        # NaN differs from itself: such a question would never be found again.
        text = json.dumps(question, sort_keys=True, allow_nan=False)
        name = hashlib.sha256(text.encode()).hexdigest()
        # 256 subfolders: network file systems are slow with millions of files in one.
        return self.folder / name[:2] / f"{name}.json"


def _plain(question: object) -> Any:
    """The value as JSON returns it: tuples become lists."""
    return json.loads(json.dumps(question))
