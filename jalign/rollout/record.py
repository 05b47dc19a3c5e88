"""Rollouts on disk: one parquet file per attempt, one row per response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jalign import store
from jalign.rollout.types import Rollout

FOLDER = "rollouts"


def write(
    folder: store.StorePath,
    number: int,
    attempt: int,
    prompts: Sequence[str],
    answers: Sequence[Sequence[str]],
    rollout: Rollout,
    arrays: Mapping[str, np.ndarray],
) -> store.StorePath:
    """Write the responses of one attempt at a rollout; an existing file of the same attempt is
    replaced.

    Columns: rollout, attempt, prompt, response, tokens, token_logps (of the sampler, nats),
    finished, and of the arrays [B, K] and [B, K, R] given: score (NaN where it is
    missing), valid, step_scores (one per step), and the mean advantage over tokens.
    """
    b, k = rollout.finished.shape
    mask, counts = rollout.mask.reshape(b * k, -1), rollout.lengths.reshape(-1)
    token_logps = rollout.token_logps.reshape(b * k, -1)
    columns: dict[str, Any] = {
        "rollout": [number] * (b * k),
        "attempt": [attempt] * (b * k),
        "prompt": [prompt for prompt in prompts for _ in range(k)],
        "response": [text for row in answers for text in row],
        "tokens": [ids.tolist() for ids in rollout.responses()],
        "token_logps": [x[m].tolist() for x, m in zip(token_logps, mask, strict=True)],
        "finished": rollout.finished.reshape(-1),
    }
    if "scores" in arrays:
        scores = arrays["scores"].reshape(-1)
        columns["score"] = np.where(np.isfinite(scores), scores, np.nan)
    if "valid" in arrays:
        columns["valid"] = arrays["valid"].reshape(-1)
    if "step_scores" in arrays:
        of_tokens = arrays["step_scores"].reshape(b * k, -1)
        columns["step_scores"] = [x[~np.isnan(x)].tolist() for x in of_tokens]
    if "advantages" in arrays:
        advantages = arrays["advantages"]
        if "take" in arrays:  # of the responses that are learned from; the others have none
            taken, advantages = advantages, np.zeros((b, k, advantages.shape[-1]), np.float32)
            np.put_along_axis(advantages, arrays["take"][..., None], taken, 1)
        total = advantages.reshape(b * k, -1).sum(-1)
        columns["advantage"] = total / np.maximum(counts, 1)
    # imported late: a benchmark or a test of a GPU needs none of its 50 MB
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(columns)
    path = folder / f"rollout-{number:06d}-{attempt}.parquet"
    store.write(path, lambda file: pyarrow.parquet.write_table(table, file))
    return path


def read(folder: store.StorePath, last: int = 1) -> list[dict[str, Any]]:
    """The rows of the last rollouts, oldest first.

    Raises:
      ValueError: there is none.
    """
    attempts = list(files(folder).values())
    if not attempts:
        raise ValueError(f"{folder} has no rollouts; `rollout.record: true` writes them")
    return [row for paths in attempts[-last:] for path in paths for row in rows(path)]


def files(folder: store.StorePath) -> dict[int, list[store.StorePath]]:
    """The files of every rollout by its number, its attempts in their order."""
    paths: dict[int, dict[int, store.StorePath]] = {}
    for path in folder.glob("rollout-*.parquet"):
        number, attempt = path.stem.split("-")[1:]
        paths.setdefault(int(number), {})[int(attempt)] = path
    return {number: [paths[number][i] for i in sorted(paths[number])] for number in sorted(paths)}


def rows(path: store.StorePath) -> list[dict[str, Any]]:
    """The responses in one file.

    Raises:
      ValueError: it is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            return pyarrow.parquet.read_table(file).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it to see the others") from error
