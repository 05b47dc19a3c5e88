"""Rows to tokenized examples in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from jalign.data.convert import to_records
from jalign.data.examples import Examples
from jalign.data.rows import Row
from jalign.data.tokenize import tokenize


def examples_from_rows(
    rows: Sequence[Row],
    kind: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    bad_rows: str = "error",
    parsing: Mapping[str, Any] = {},
    **limits: Any,
) -> Examples:
    """The examples of rows of any of the usual layouts, with one report of parsing and tokenizing.

    Args:
      kind: the kind of record, as in `to_records`.
      bad_rows: a row that does not parse or render is an "error", or "drop": left out and counted.
      parsing: further arguments of `convert.to_records`.
      limits: further arguments of `tokenize.tokenize`.

    Raises:
      ValueError: as both.
    """
    records, report = to_records(rows, kind, bad_rows=bad_rows, **parsing)
    return tokenize(records, tokenizer, bad_rows=bad_rows, report=report, **limits)
