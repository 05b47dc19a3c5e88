"""Names of what a run's folder holds; light, so that a command can list runs without models."""

from __future__ import annotations

from contextlib import nullcontext

from jalign import store

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"
ROLLOUTS = "rollouts"


def is_run(folder: str) -> bool:
    """Whether the folder is a run directory.

    Raises:
      ValueError: it is in a bucket that cannot be read.
    """
    path = store.as_path(folder)
    with store.reading(folder) if store.is_remote(folder) else nullcontext():
        return (path / CONFIG_FILE).is_file() and (path / CHECKPOINTS).is_dir()
