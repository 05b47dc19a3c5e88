"""Names of what a run's folder holds; light, so that a command can list runs without models."""

from __future__ import annotations

from jalign import store

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"
ROLLOUTS = "rollouts"


def is_run(folder: str) -> bool:
    """Whether the folder is a run directory."""
    path = store.as_path(folder)
    return (path / CONFIG_FILE).is_file() and (path / CHECKPOINTS).is_dir()
