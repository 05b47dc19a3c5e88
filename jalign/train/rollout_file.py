"""The examples of the current rollout, in a file of the checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from jalign import store
from jalign.checkpoint.errors import CheckpointError
from jalign.data.examples import Examples, Report
from jalign.parallel import hosts


def write(path: store.StorePath, examples: Examples) -> None:
    """Write all but the report."""
    e = examples
    arrays = {"tokens": e.tokens, "scored": e.scored, "bounds": e.bounds, "first": e.first}
    extras: dict[str, Any] = {f"extras.{n}": x for n, x in e.extras.items()}
    arrays |= extras
    store.write(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read(path: store.StorePath, report: Report, checksum: str | None) -> Examples:
    """Read what `write` wrote. Collective.

    Args:
      report: of the examples.
      checksum: their fingerprint; None, as in older checkpoints, skips the comparison.

    Raises:
      CheckpointError: on every process, if on any the file is missing, unreadable or different from
        what was saved.
    """
    examples, wrong = None, None
    try:
        examples = _examples(path, report)
        if checksum not in (None, examples.fingerprint):
            wrong = "its content is not what was saved"
    except Exception as error:  # zip, numpy and file systems share no error class for damage
        wrong = f"{type(error).__name__}: {error}"
    if hosts.any_process(wrong is not None):
        raise CheckpointError(
            f"the checkpoint is in the middle of a rollout, and {path} is missing or damaged "
            f"({wrong or 'on another process'})"
        )
    assert examples is not None
    return examples


def _examples(path: store.StorePath, report: Report) -> Examples:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
        extras = {n.removeprefix("extras."): saved[n] for n in saved if n.startswith("extras.")}
        tokens, scored, bounds, first = (saved[n] for n in ("tokens", "scored", "bounds", "first"))
    return Examples(tokens, scored, bounds, first, extras, report)
