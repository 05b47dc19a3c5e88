"""Tokenized examples of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from jalign.data.clock import CLOCK
from jalign.data.convert import to_records
from jalign.data.examples import Examples
from jalign.data.rows import Row
from jalign.data.tokenize import tokenize
from jalign.options import DataConfig, RunOptions
from jalign.run.data.columns import add_loss_columns
from jalign.run.data.sources import MemoryRow, all_rows, as_rows, columns_renamed, split_rows


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
    c = options.data
    if train is None:
        from_files = options
        if eval is not None:  # so that no part of data.train is held out as well
            c_train = replace(c, eval=None, eval_split="test", holdout=0)
            from_files = replace(options, data=c_train)
        rows, held = all_rows(from_files)
    else:
        rows, held = as_rows(train, options)[: c.limit or None], []
        if eval is None and c.eval is not None:
            held = columns_renamed(c, c.eval, c.eval_split)
        elif eval is None:
            rows, held = split_rows(options, rows)
    if eval is not None:
        held = as_rows(eval, options)
    # after the split, so that a limit does not change which rows are held out
    held = held[: c.eval_limit or None]
    examples, held_examples = examples_of(options, tokenizer, (rows, held))
    return RunData(rows, held, examples, held_examples)


def examples_of(
    options: RunOptions,
    tokenizer: PreTrainedTokenizerBase,
    rows: tuple[Sequence[Row], Sequence[Row]] | None = None,
) -> tuple[Examples, Examples | None]:
    """Tokenized training and held-out examples of these rows, or of `all_rows`."""
    row, c = options.algorithm, options.data
    # before a row is rendered: a resumed run must see the date of its first start
    CLOCK.fix(c.date)
    train, held = rows or all_rows(options)
    # Only training rows are filtered and balanced, so that runs with other filters share their
    # held-out data.
    selection = {"filters": c.filters, "balance": c.balance, "weights": row.class_weights}
    selection = {} if row.experience else selection
    examples = _tokenized(train, row.data_kind, c, tokenizer, **_read(options), **selection)
    if not row.experience:
        add_loss_columns(options, examples)
    return examples, held_of(options, tokenizer, held)


def held_of(
    options: RunOptions, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row]
) -> Examples | None:
    """Tokenized held-out examples alone."""
    if not rows:
        return None
    row = options.algorithm
    examples = _tokenized(rows, row.data_kind, options.data, tokenizer, **_read(options))
    if not row.experience:
        add_loss_columns(options, examples)
    return examples


def tokenize_prompts(
    rows: Sequence[Row], kind: str, c: DataConfig, tokenizer: PreTrainedTokenizerBase
) -> Examples:
    """Tokenize rows as prompts of an online run; the other columns are kept for rewards."""
    return _tokenized(rows, kind, c, tokenizer, **PROMPTS)


def pretraining_of(options: RunOptions, tokenizer: PreTrainedTokenizerBase) -> Examples:
    """Tokenized texts of `data.pretraining`."""
    c = options.data
    assert c.pretraining is not None
    rows = columns_renamed(c, c.pretraining, "train")
    return _tokenized(rows, "supervised", c, tokenizer, numeric=())


PROMPTS: dict[str, Any] = {"numeric": (), "unread": "kept for rewards"}
"""How the columns beside the prompts of an online run are read."""


def _read(options: RunOptions) -> dict[str, Any]:
    """Which columns are read beside the texts, as arguments of `to_records`."""
    # others may hold text: a column that no loss reads must not be refused for it
    loss: dict[str, Any] = {"numeric": {*options.algorithm.inputs(), "weight"}}
    return PROMPTS if options.algorithm.experience else loss


def _tokenized(
    rows: Sequence[Row],
    kind: str,
    c: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    **selection: Any,
) -> Examples:
    records, report = to_records(
        rows, kind, soft_labels=c.soft_labels, bad_rows=c.bad_rows, **selection
    )
    return tokenize(
        records,
        tokenizer,
        max_prompt_len=c.max_prompt_len,
        max_response_len=c.max_response_len,
        over_long=c.over_long,
        keep_eos=c.keep_eos,
        loss_on=c.loss_on,
        loss_turns=c.loss_turns,
        template=c.template,
        bad_rows=c.bad_rows,
        report=report,
    )
