"""Record the rollouts of an online run in its folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from jalign import store
from jalign.options import RunOptions
from jalign.parallel import hosts
from jalign.rollout import record
from jalign.rollout.types import Rollout
from jalign.run.prompts import PromptTable
from jalign.train.protocols import OnRollout

LOG = logging.getLogger(__name__)


def recorder_of(options: RunOptions, table: PromptTable) -> OnRollout:
    """An observer that records every rollout for `jalign rollouts`."""
    return partial(write_record, store.as_path(options.out) / record.FOLDER, table)


def write_record(
    folder: store.StorePath,
    table: PromptTable,
    number: tuple[int, int],
    indices: Sequence[int],
    rollout: Rollout,
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write one attempt at a rollout to the run's folder."""
    # all processes hold the full rollout: one writes it
    if not hosts.is_main():
        return
    prompts = [table[i].text for i in indices]
    responses = [
        [table.decode(i, rollout.response(b, k)) for k in range(rollout.finished.shape[1])]
        for b, i in enumerate(indices)
    ]
    try:
        record.write(folder, *number, prompts, responses, rollout, arrays)
    except OSError as error:  # a record is no reason to end a run
        LOG.error("rollout %d is not recorded in %s: %s", number[0], folder, error)
