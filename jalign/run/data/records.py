"""Records of a run's data: prompts, or any other kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jalign.data.convert import to_records
from jalign.data.examples import Report
from jalign.data.records import Message, Record
from jalign.data.rows import Row
from jalign.options import RunOptions
from jalign.run.data.examples import noise_of
from jalign.run.data.sources import training_rows


def prompts_of(
    rows: Sequence[Row], say: Callable[[str], None] = lambda _: None
) -> list[str | list[Message]]:
    """The prompts of rows of any kind, as texts or messages; a plain text counts as a prompt.

    Args:
      say: called with a line about dropped rows, and about tools, which the prompts lack.
    """
    records = prompt_records(rows, say)
    if any(record.tools for record in records):
        say("the tools of these prompts are not read")
    return [record.prompt for record in records]


def prompt_records(
    rows: Sequence[Row], say: Callable[[str], None] = lambda _: None
) -> list[Record]:
    """The prompts with their tools; `say` is called with a line about dropped rows."""
    if rows and "text" in rows[0] and "prompt" not in rows[0]:
        texts = to_records(rows, "supervised", numeric=())[0]
        return [record._replace(prompt=record.responses[0], responses=[]) for record in texts]
    records, report = to_records(rows, "prompts")
    for reason, count in report.dropped.items():
        say(f"left out: {count} rows, {reason}")
    return records


def converted(options: RunOptions, kind: str) -> tuple[list[Record], Report]:
    """All of `data.train` as records of a kind, filtered and balanced, with nothing held out."""
    c = options.data
    return to_records(
        training_rows(c),
        kind,
        bad_rows=c.bad_rows,
        filters=c.filters,
        balance=c.balance,
        soft_labels=c.soft_labels,
        noise=noise_of(options),
    )
