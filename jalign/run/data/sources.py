"""Read rows from files, folders, the hub, the package or memory; split off held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jalign import embedded
from jalign.core import did_you_mean
from jalign.data import sources, splits
from jalign.data.rows import Row, rename
from jalign.options import DataConfig, RunOptions, Sources
from jalign.options.data import EMBEDDED, is_embedded

HOLDOUT = 0.05  # of the training data, unless options say otherwise

MemoryRow = Row | str | Sequence[Mapping[str, Any]]
"""A row as Python users write it: a mapping of columns, a text, or a list of messages."""


def as_rows(rows: Sequence[MemoryRow], options: RunOptions) -> list[Row]:
    """Give rows in memory columns: a text or a list of messages becomes the prompt of an online
    run, or the text or messages of supervised data.
    """
    online = options.algorithm.experience is not None
    text, messages = ("prompt", "prompt") if online else ("text", "messages")
    columns = []
    for row in rows:
        if isinstance(row, Mapping):
            columns.append(row)
        else:
            columns.append({text if isinstance(row, str) else messages: row})
    names = options.data.columns
    return list(rename(columns, names)) if names else columns


def rows_of(data: Sources, split: str, bad_rows: str = "error") -> list[dict[str, object]]:
    """Rows of one source or of a weighted mixture; `split` applies to sources with several."""
    named = [(_path(name, split), weight) for name, weight in _weights(data)]
    # one source keeps its columns: a mixture adds `_source` to each row
    if len(named) == 1 and named[0][1] == 1:
        return sources.read(named[0][0], split, bad_rows=bad_rows)
    return sources.mixture(named, split, bad_rows=bad_rows)


def names_of(data: Sources) -> list[str]:
    """Files, folders and hub names of the sources."""
    return [name for name, _ in _weights(data)]


def all_rows(
    options: RunOptions,
    train: Sequence[MemoryRow] | None = None,
    eval: Sequence[MemoryRow] | None = None,
) -> tuple[Sequence[Row], Sequence[Row]]:
    """Training and held-out rows, with columns under jalign's names.

    Without `data.eval`, the held-out rows are the test split of `data.train` if it has one, else a
    part of the training rows.

    Args:
      train: rows in memory instead of `data.train`.
      eval: rows in memory instead of `data.eval`; nothing else is held out.
    """
    c = options.data
    rows = training_rows(c) if train is None else as_rows(train, options)[: c.limit or None]
    if eval is not None:
        held = as_rows(eval, options)
    elif train is None:
        held = _separate_held_rows(c)
    else:
        held = columns_renamed(c, c.eval, c.eval_split) if c.eval is not None else None
    if held is None and (holdout := _holdout(c)):
        # by the prompt's hash: other rows that are added move none to the other side
        kind = options.algorithm.data_kind
        rows, held = sources.split(rows, holdout, wanted=kind, bad_rows=c.bad_rows)
    # after the split, so that a limit does not change which rows are held out
    return rows, (held or [])[: c.eval_limit or None]


def held_rows(options: RunOptions) -> Sequence[Row]:
    """The held-out rows of `all_rows`; training rows are read only if these are a part of them."""
    held = _separate_held_rows(options.data)
    # a hub data set may be large: training rows only where they are needed
    return all_rows(options)[1] if held is None else held[: options.data.eval_limit or None]


def training_rows(c: DataConfig) -> list[dict[str, object]]:
    """All rows of `data.train`, with none held out."""
    return columns_renamed(c, c.train, _training_split(c))[: c.limit or None]


def columns_renamed(c: DataConfig, data: Sources, split: str) -> list[dict[str, object]]:
    """Read rows and rename the columns in `data.columns` to jalign's names."""
    rows = rows_of(data, split, c.bad_rows)
    return rename(rows, c.columns) if c.columns else rows


def described_splits(c: DataConfig) -> list[str]:
    """Lines about the splits that are read, for sources with several."""
    lines = []
    for name, _ in _weights(c.train):
        names = [] if name in EMBEDDED else sources.split_names(name)
        if names:
            read = splits.pick(names, c.split, name) if _has(names, c.split) else "no split"
            others = ", ".join(n for n in names if n != read)
            lines.append(
                f"{name}: trained on {read}" + (f"; there is also {others}" * bool(others))
            )
    if held_out := _held_out_split(c):
        lines.append(f"held out: the split {held_out} of {c.train}")
    return lines


def _weights(data: Sources) -> list[tuple[str, float]]:
    names = data if isinstance(data, list | dict) else [data]
    return list(names.items()) if isinstance(names, dict) else [(n, 1.0) for n in names]


def _path(name: str, split: str) -> str:
    """Resolve a source to a path or hub name; data in the package have special names."""
    if name in EMBEDDED:
        half = "train" if splits.family(split) in ("train", None) else "test"
        return str(getattr(embedded, EMBEDDED[name])(half))
    # else the hub would be asked for it, and answer with another error
    if name.startswith("embedded-") and not Path(name).exists():
        raise ValueError(f"the package has no data {name!r}{did_you_mean(name, EMBEDDED)}")
    return name


def _separate_held_rows(c: DataConfig) -> Sequence[Row] | None:
    """Held-out rows from a separate file or split; None if they are a part of the training rows."""
    held_out = _held_out_split(c)
    if c.eval is not None:
        return columns_renamed(c, c.eval, c.eval_split)
    # both halves ship, cut so that no opening is in both
    if is_embedded(c.train):
        return columns_renamed(c, c.train, "test")
    return columns_renamed(c, c.train, held_out) if held_out else None


def _holdout(c: DataConfig) -> float:
    """The fraction or number of training rows to hold out; 0 for none."""
    holdout = HOLDOUT if c.holdout is None else c.holdout
    # `sources.split` tells a count from a fraction by its type
    return holdout if holdout < 1 else int(holdout)


def _has(names: Sequence[str], split: str) -> bool:
    return any(splits.family(n) == splits.family(split) or n == split for n in names)


def _training_split(c: DataConfig) -> str:
    names = names_of(c.train)
    if c.split != "train" and not any(n not in EMBEDDED and sources.split_names(n) for n in names):
        raise ValueError(f"data.split does not apply: {', '.join(names)} has no splits")
    return c.split


def _held_out_split(c: DataConfig) -> str | None:
    """The split of the training source that is held out, if no other data are."""
    asked = c.eval_split != "test"
    if c.eval is not None or c.holdout is not None or not isinstance(c.train, str):
        names = []
    else:
        names = [] if is_embedded(c.train) else sources.split_names(c.train)
    if c.eval is None and asked:
        if not names:
            raise ValueError("data.eval_split needs data.eval, or one source with several splits")
        return splits.pick(names, c.eval_split, str(c.train))
    trained = splits.pick(names, c.split, str(c.train)) if _has(names, c.split) else c.split
    return splits.held_out(names, trained)
