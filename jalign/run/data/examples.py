"""Tokenized examples of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from jalign.data.clock import CLOCK
from jalign.data.examples import Examples
from jalign.data.from_rows import examples_from_rows
from jalign.data.noise import Flip
from jalign.data.rows import Row
from jalign.options import DataConfig, RunOptions
from jalign.run.data.columns import add_loss_columns
from jalign.run.data.sources import MemoryRow, all_rows, columns_renamed


class RunData(NamedTuple):
    """The training and held-out data of a run.

    Attributes:
      rows, held_rows: training and held-out rows; `extras["row"]` of an example is its index here.
      examples: tokenized training rows.
      held: tokenized held-out rows; None if nothing is held out.
    """

    rows: Sequence[Row]
    held_rows: Sequence[Row]
    examples: Examples
    held: Examples | None


def load(
    options: RunOptions,
    tokenizer: PreTrainedTokenizerBase,
    train: Sequence[MemoryRow] | None = None,
    eval: Sequence[MemoryRow] | None = None,
) -> RunData:
    """Read and tokenize the data of a run.

    Args:
      options: `data` defines what is read and how, the algorithm what the rows mean.
      tokenizer: of the policy.
      train: training rows in memory instead of `data.train`; `data.holdout` of them is held out
        unless held-out rows are given.
      eval: held-out rows in memory instead of `data.eval`; nothing else is held out.

    Raises:
      ValueError: rows that cannot be read, or lack a column that the loss reads.
    """
    row, c = options.algorithm, options.data
    rows, held = all_rows(options, train, eval)
    # before a row is rendered: a resumed run must see the date of its first start
    CLOCK.fix(c.date)
    # Only training rows are filtered and balanced, so that runs with other filters share their
    # held-out data.
    selection = {"filters": c.filters, "balance": c.balance, "weights": row.class_weights}
    # held-out labels stay as they are: they say what the noise has done
    selection["noise"] = noise_of(options)
    selection = {} if row.experience else selection
    how = _arguments(c, **_columns_read(options), **selection)
    examples = examples_from_rows(rows, row.data_kind, tokenizer, **how)
    if not row.experience:
        add_loss_columns(options, examples)
    return RunData(rows, held, examples, held_of(options, tokenizer, held))


def examples_of(
    options: RunOptions, tokenizer: PreTrainedTokenizerBase
) -> tuple[Examples, Examples | None]:
    """The training and held-out examples of `load`, without their rows."""
    data = load(options, tokenizer)
    return data.examples, data.held


def held_of(
    options: RunOptions, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]
) -> Examples | None:
    """Tokenized held-out examples alone. Their annotators count as unknown (-1): numbers of
    annotators are of one data set.
    """
    if not rows:
        return None
    row = options.algorithm
    how = _arguments(options.data, **_columns_read(options))
    examples = examples_from_rows(rows, row.data_kind, tokenizer, **how)
    if not row.experience:
        add_loss_columns(options, examples)
    if "annotator" in examples.extras:
        examples.extras["annotator"] = np.full(len(examples), -1, np.int32)
    return examples


def tokenize_prompts(
    rows: Sequence[Row], kind: str, c: DataConfig, tokenizer: PreTrainedTokenizerBase
) -> Examples:
    """Tokenize rows as prompts of an online run; the other columns are kept for rewards."""
    return examples_from_rows(rows, kind, tokenizer, **_arguments(c, **PROMPTS))


def pretraining_of(options: RunOptions, tokenizer: PreTrainedTokenizerBase) -> Examples:
    """Tokenized texts of `data.pretraining`."""
    c = options.data
    assert c.pretraining is not None
    rows = columns_renamed(c, c.pretraining, "train")
    return examples_from_rows(rows, "supervised", tokenizer, **_arguments(c, numeric=()))


PROMPTS: dict[str, Any] = {"numeric": (), "unread": "kept for rewards"}
"""How the columns beside the prompts of an online run are read."""


def noise_of(options: RunOptions) -> Flip | None:
    """The labels of the training data that are inverted on purpose."""
    c = options.data
    return None if c.flip == "none" else Flip(c.flip, c.flip_share, options.seed)


def _columns_read(options: RunOptions) -> dict[str, Any]:
    """Which columns are read beside the texts, as arguments of `to_records`."""
    # others may hold text: a column that no loss reads must not be refused for it
    loss: dict[str, Any] = {"numeric": {*options.algorithm.inputs(), "weight"}}
    return PROMPTS if options.algorithm.experience else loss


def _arguments(c: DataConfig, **parsing: Any) -> dict[str, Any]:
    """Arguments of `examples_from_rows`: those of the options, and further ones of parsing."""
    return {
        "parsing": {"soft_labels": c.soft_labels, **parsing},
        "bad_rows": c.bad_rows,
        "max_prompt_len": c.max_prompt_len,
        "max_response_len": c.max_response_len,
        "over_long": c.over_long,
        "keep_eos": c.keep_eos,
        "loss_on": c.loss_on,
        "loss_turns": c.loss_turns,
        "template": c.template,
    }
