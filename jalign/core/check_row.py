"""Checks of a row of the catalogue at construction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jalign.core.experience import ROLLOUT
from jalign.signatures import arrays_of, did_you_mean

if TYPE_CHECKING:
    from jalign.core.algorithm import Algorithm


def check_row(row: Algorithm) -> None:
    """Raise for names that nothing would provide or read.

    A misspelled array must fail when the row is made, not as a KeyError in a compiled step.

    Raises:
      TypeError: an array that the rollout or the format does not have, a default that the loss does
        not take, or a batch-coupled loss of tokens.
    """
    for name in row.rollout_inputs():
        if name not in ROLLOUT:
            near = did_you_mean(name, ROLLOUT)
            raise TypeError(f"{row.name}: a rollout has no array {name!r}{near}")
    allowed = row.format.fields | set(row.carry.names if row.carry else ())
    for fn in (row.loss, *(aux.loss for aux in row.available_aux_losses.values())):
        for name in arrays_of(fn):
            if name not in allowed:
                raise TypeError(
                    f"{row.name}: {fn.__name__} asks for the array {name!r}, unknown to format "
                    f"{row.format.name!r}{did_you_mean(name, allowed)}"
                )
    for name in row.carry.by.values() if row.carry else ():
        if name not in row.format.data_fields:
            raise TypeError(
                f"{row.name}: running values by {name!r}, which is no column of format "
                f"{row.format.name!r}{did_you_mean(name, row.format.data_fields)}"
            )
    # the step joins all micro-batches first, whose R may differ, so only [B] arrays join
    arrays = {name.removeprefix("last_") for name in arrays_of(row.loss)}
    token_arrays = row.format.token_fields & arrays
    if row.batch_coupled and token_arrays:
        raise TypeError(
            f"{row.name}: a batch-coupled loss reads one value per response, not the token-level "
            f"{', '.join(sorted(token_arrays))}"
        )
    hyper = row.unweighted_hyper()
    for name in row.defaults:
        if name not in hyper:
            raise TypeError(
                f"{row.name}: default {name!r} is not a keyword argument of "
                f"{row.loss.__name__}{did_you_mean(name, hyper)}"
            )


def check_moving(hyper: Mapping[str, float]) -> None:
    """Raise where a hyper-parameter of a moving reference is out of range.

    Raises:
      ValueError: with the hyper-parameter, its range and its value.
    """
    # a second moving reference that never moved would be a copy of the first policy
    for name, least in (("ref_sync_steps", 0), ("last_sync_steps", 1)):
        if (steps := hyper.get(name, least)) < least:
            raise ValueError(f"{name} must be >= {least}, got {steps}")
    for name in ("ref_mixup_alpha", "last_mixup_alpha"):
        if not 0 < (alpha := hyper.get(name, 1.0)) <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {alpha}")
    if (half_step := hyper.get("half_step", 1.0)) < 0:
        raise ValueError(f"half_step must be >= 0, got {half_step}")
