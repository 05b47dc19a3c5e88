"""Checks of every run: hyper-parameters, ranges of numbers, and held-out data."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING

from jalign.options.data import is_embedded

if TYPE_CHECKING:
    from jalign.options.run import RunOptions

# null passes: it is a default that is filled in later
MINIMUM = {
    "log_every": 1, "max_bad_steps": 1, "eval_every": 0, "data.limit": 0, "data.eval_limit": 0,
    "data.holdout": 0, "data.soft_labels": 0, "sample.prompts": 0, "sample.every": 0,
    "sample.max_new_tokens": 1, "checkpoint.every": 0, "checkpoint.keep": 1, "model.depth": 0,
}  # fmt: skip


def check_hyper(options: RunOptions) -> Iterator[str]:
    """A learning rate, and hyper-parameters that the losses accept."""
    if options.optim.learning_rate is None:  # filled in for adamw and adafactor
        yield (
            "optim.learning_rate: the usual ones are those of adamw; set it for "
            f"{options.optim.name}"
        )
    try:
        # the losses check their own ranges, which are thus the same from YAML and from Python
        options.algorithm.trace()
    except ValueError as error:
        yield str(error)


def check_general(options: RunOptions) -> Iterator[str]:
    """Ranges of numbers, and options of samples and held-out data that have no effect."""
    yield from _check_ranges(options)
    row, data, sample = options.algorithm, options.data, options.sample
    if options.batch_size < 1:
        yield f"batch_size must be >= 1, got {options.batch_size}"
    if options.steps < 0 or (options.steps == 0 and options.epochs <= 0):
        yield "set steps > 0, or epochs > 0"
    # ranks, means and mismatched pairs of a single example are all trivial
    if row.batch_coupled and options.batch_size < 2:
        yield f"{row.name} compares the examples of a batch: batch_size must be >= 2"
    for name in ("score", "every"):
        if getattr(sample, name) and not sample.prompts:
            yield f"sample.{name} needs sample.prompts > 0"
    if sample.prompts and row.needs_value_head:
        yield f"sample.prompts does not apply to {row.name}: it trains no language model"
    if data.holdout and (data.eval is not None or is_embedded(data.train)):
        yield "data.holdout does not apply: there are held-out data already"
    if data.flip != "none" and not 0 <= data.flip_share < 1:
        yield f"data.flip_share must be in [0, 1), got {data.flip_share}"
    if data.flip != "none" and row.data_kind not in ("pairs", "joint", "binary"):
        yield (
            "data.flip inverts pairs and labels of single responses; "
            f"{row.name} reads {row.data_kind}"
        )
    if data.flip == "none" and data.flip_share != type(data).flip_share:
        yield "data.flip_share does not apply: set data.flip to uniform, annotator or tail"
    splits = isinstance(data.train, str) and not is_embedded(data.train)
    if data.eval is None and data.eval_split != "test" and not splits:
        yield "data.eval_split needs data.eval"


def _check_ranges(options: RunOptions) -> Iterator[str]:
    """Numbers out of range, or that the optimizer does not read; and the date."""
    if options.data.date is not None:
        try:
            datetime.fromisoformat(options.data.date)
        except ValueError:
            yield (
                "data.date must be a date such as 2026-11-30, or 2026-11-30T18:05 with a time, got "
                f"{options.data.date!r}"
            )
    for name, minimum in MINIMUM.items():
        value = attrgetter(name)(options)
        if value is not None and value < minimum:
            yield f"{name} must be >= {minimum}, got {value}"
    try:
        # with epochs the number of steps is unknown before the data are read
        # and the schedule counts updates, of which an extragradient makes one in two steps
        updates = -(-options.steps // options.algorithm.calls_per_update)
        options.optim.make(updates or max(options.optim.warmup_steps, 1))
    except (TypeError, ValueError) as error:
        yield str(error)
