"""Where a `RunOptions`'s data become rows, records and examples."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from jalign import embedded
from jalign.core import did_you_mean
from jalign.data import sources, splits
from jalign.data.clock import CLOCK
from jalign.data.convert import to_records
from jalign.data.density import density_ratio
from jalign.data.examples import Examples, Report
from jalign.data.records import Message, Record
from jalign.data.rows import Row, rename
from jalign.data.tokenize import tokenize
from jalign.models import hub
from jalign.options import DataConfig, RunOptions, Sources
from jalign.options.data import EMBEDDED, is_embedded
from jalign.run.policy import model_path

HOLDOUT = 0.05  # of the training data, where nothing is said about held-out data


def rows_of(sources_: Sources, split: str, bad_rows: str = "error") -> list[dict[str, Any]]:
    """Rows of one source or of a weighted mixture; `split` counts where a source has several."""
    named = [(_place(n, split), w) for n, w in _weights(sources_)]
    if len(named) == 1 and named[0][1] == 1:
        return sources.read(named[0][0], split, bad_rows=bad_rows)
    return sources.mixture(named, split, bad_rows=bad_rows)


def names_of(sources_: Sources) -> list[str]:
    """Files, folders and hub names of the sources."""
    return [name for name, _ in _weights(sources_)]


def _weights(sources_: Sources) -> list[tuple[str, float]]:
    names = sources_ if isinstance(sources_, list | dict) else [sources_]
    return list(names.items()) if isinstance(names, dict) else [(n, 1.0) for n in names]


def prompts_of(
    rows: Sequence[Row], say: Callable[[str], None] = lambda _: None
) -> list[str | list[Message]]:
    """The prompts of rows of any kind, texts or messages; a text alone is one too.

    Args:
      say: hears of rows that are left out and of tools, which are not in the prompts.
    """
    records = prompt_records(rows, say)
    if any(record.tools for record in records):
        say("the tools of these prompts are not read")
    return [record.prompt for record in records]


def prompt_records(
    rows: Sequence[Row], say: Callable[[str], None] = lambda _: None
) -> list[Record]:
    """The prompts with their tools; `say` hears of rows that are left out."""
    if rows and "text" in rows[0] and "prompt" not in rows[0]:
        texts = to_records(rows, "supervised", numbers=())[0]
        return [record._replace(prompt=record.responses[0], responses=[]) for record in texts]
    records, report = to_records(rows, "prompts")
    for reason, count in report.dropped.items():
        say(f"left out: {count} rows, {reason}")
    return records


def _place(name: str, split: str) -> str:
    """Where a source is; those in the package go by a name of their own."""
    if name in EMBEDDED:
        kind = "train" if splits.family(split) in ("train", None) else "test"
        return str(getattr(embedded, EMBEDDED[name])(kind))
    if name.startswith("embedded-") and not Path(name).exists():
        raise ValueError(f"the package has no data {name!r}{did_you_mean(name, EMBEDDED)}")
    return name


def all_rows(options: RunOptions) -> tuple[Sequence[Row], Sequence[Row]]:
    """Rows of the training and of the held-out data, with the columns named as jalign names them.

    Where nothing is said of held-out data, those of `data.train` are the test split of its folder
    or hub name, if it has one, else a part of the training rows.
    """
    c = options.data
    train = _rows(c, c.train, _training_split(c))[: c.limit or None]
    held = _rows_apart(c)
    if held is None:
        train, held = _split(options, train)
    return train, held[: c.eval_limit or None]


def held_rows(options: RunOptions) -> Sequence[Row]:
    """The second of `all_rows`; the training data are read only where it is a part of them."""
    held = _rows_apart(options.data)
    return all_rows(options)[1] if held is None else held[: options.data.eval_limit or None]


def _rows_apart(c: DataConfig) -> Sequence[Row] | None:
    """Held-out rows that are no part of the training rows."""
    own = _held_out_split(c)
    if c.eval is not None:
        return _rows(c, c.eval, c.eval_split)
    if is_embedded(c.train):
        return _rows(c, c.train, "test")
    return _rows(c, c.train, own) if own else None


def _split(options: RunOptions, rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    c = options.data
    part = HOLDOUT if c.holdout is None else c.holdout
    if not part:
        return rows, []
    part, wanted = part if part < 1 else int(part), options.algorithm.data_kind
    return sources.split(rows, part, wanted=wanted, bad_rows=c.bad_rows)


def described_splits(c: DataConfig) -> list[str]:
    """Which splits are read, for people, where a source has several."""
    lines = []
    for name, _ in _weights(c.train):
        there = [] if name in EMBEDDED else sources.split_names(name)
        if there:
            read = splits.pick(there, c.split, name) if _has(there, c.split) else "no split"
            others = ", ".join(n for n in there if n != read)
            lines.append(
                f"{name}: trained on {read}" + (f"; there is also {others}" * bool(others))
            )
    if own := _held_out_split(c):
        lines.append(f"held out: the split {own} of {c.train}")
    return lines


def _has(there: Sequence[str], split: str) -> bool:
    return any(splits.family(n) == splits.family(split) or n == split for n in there)


def _rows(c: DataConfig, sources_: Sources, split: str) -> list[dict[str, Any]]:
    rows = rows_of(sources_, split, c.bad_rows)
    return rename(rows, c.columns) if c.columns else rows


def _training_split(c: DataConfig) -> str:
    names = [n for n, _ in _weights(c.train)]
    if c.split != "train" and not any(n not in EMBEDDED and sources.split_names(n) for n in names):
        raise ValueError(f"data.split does not apply: {', '.join(names)} has no splits")
    return c.split


def _held_out_split(c: DataConfig) -> str | None:
    """The split of the training source that is held out, if nothing else is."""
    asked = c.eval_split != "test"
    if c.eval is not None or c.holdout is not None or not isinstance(c.train, str):
        there = []
    else:
        there = [] if is_embedded(c.train) else sources.split_names(c.train)
    if c.eval is None and asked:
        if not there:
            raise ValueError("data.eval_split needs data.eval, or one source with several splits")
        return splits.pick(there, c.eval_split, str(c.train))
    trained = splits.pick(there, c.split, str(c.train)) if _has(there, c.split) else c.split
    return splits.held_out(there, trained)


def examples_of(
    options: RunOptions, tokenizer: Any, rows: tuple[Sequence[Row], Sequence[Row]] | None = None
) -> tuple[Examples, Examples | None]:
    """Tokenised training and held-out examples (of `all_rows`, unless those are there already)."""
    c, row = options.data, options.algorithm
    CLOCK.fix(c.date)
    train, held = rows or all_rows(options)
    kind = row.data_kind
    if row.experience:
        prompts = tokenize_prompts(train, kind, c, tokenizer)
        return prompts, held_of(options, tokenizer, held)
    examples = _tokenised(
        train, kind, c, tokenizer, numbers=_numbers(options), **_selection(options)
    )
    return _with_all_columns(options, examples), held_of(options, tokenizer, held)


def tokenize_prompts(
    rows: Sequence[Row], kind: str, c: DataConfig, tokenizer: PreTrainedTokenizerBase
) -> Examples:
    """Rows as the prompts of an online run; their other columns are kept for rewards."""
    return _tokenised(rows, kind, c, tokenizer, numbers=(), unread="kept for rewards")


def _numbers(options: RunOptions) -> set[str]:
    """Columns of numbers that are read."""
    return {*options.algorithm.inputs(), "weight"}


def held_of(options: RunOptions, tokenizer: Any, rows: Sequence[Row]) -> Examples | None:
    """Tokenised held-out examples alone."""
    if not rows:
        return None
    row, c = options.algorithm, options.data
    if row.experience:
        return tokenize_prompts(rows, row.data_kind, c, tokenizer)
    examples = _tokenised(rows, row.data_kind, c, tokenizer, numbers=_numbers(options))
    return _with_all_columns(options, examples)


def pretraining_of(options: RunOptions, tokenizer: Any) -> Examples:
    """Tokenised texts of `data.pretraining`."""
    assert options.data.pretraining is not None
    rows = _rows(options.data, options.data.pretraining, "train")
    return _tokenised(rows, "supervised", options.data, tokenizer, numbers=())


def _with_all_columns(options: RunOptions, examples: Examples) -> Examples:
    """The examples with everything that the loss reads from the data, or an error that names what
    is missing.
    """
    algorithm = options.algorithm
    read = set(algorithm.inputs()) & algorithm.format.data_fields
    if "density_ratio" in read - set(examples.extras):
        features = _prompt_embeddings(options, examples)
        labels = np.asarray(examples.extras["label"])
        examples.extras["density_ratio"] = density_ratio(features, labels)
    if missing := sorted(read - set(examples.extras)):
        made = "; data.soft_labels makes it of margin" if "chosen_prob" in missing else ""
        raise ValueError(
            f"{algorithm.name} reads {', '.join(missing)} from the data, which have "
            f"{', '.join(sorted(examples.extras)) or 'no such columns'}{made}"
        )
    attributes = len(examples.report.attributes)
    if "attribute_ratings" in read and attributes != options.model.heads:
        raise ValueError(
            f"the data rate {attributes} attributes ({', '.join(examples.report.attributes)}), but "
            f"model.heads is {options.model.heads}"
        )
    return examples


def _prompt_embeddings(options: RunOptions, examples: Examples) -> np.ndarray:
    """[examples, width] mean of the model's own token embeddings over each prompt."""
    table = hub.embedding(model_path(options.model.path))
    prompts = [example.prompt for example in examples]
    return np.stack([table[p].mean(0) if len(p) else np.zeros(table.shape[1]) for p in prompts])


def converted(options: RunOptions, kind: str) -> tuple[list[Record], Report]:
    """All of `data.train` as records of a kind: nothing is held out, but filters and balance
    apply.
    """
    c = options.data
    rows = _rows(c, c.train, _training_split(c))[: c.limit or None]
    return to_records(
        rows,
        kind,
        bad_rows=c.bad_rows,
        filters=c.filters,
        balance=c.balance,
        soft_labels=c.soft_labels,
    )


def _selection(options: RunOptions) -> dict[str, Any]:
    """What decides which training rows are left out; held-out data stay as they are, so that runs
    with other filters can be compared.
    """
    weights = options.algorithm.class_weights
    return {"filters": options.data.filters, "balance": options.data.balance, "weights": weights}


def _tokenised(
    rows: Sequence[Row], kind: str, c: DataConfig, tokenizer: Any, **selection: Any
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
        train_on=c.loss_on,
        turns=c.loss_turns,
        template=c.template,
        bad_rows=c.bad_rows,
        report=report,
    )
