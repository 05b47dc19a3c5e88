"""Shared by label, revise and prompts: input rows, resumable output, the judge's report."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import jax

from jalign.data.journal import Made, Make, Row, make_file
from jalign.log.display import Display
from jalign.options import LabelConfig, PromptsConfig, ReviseConfig
from jalign.options.judge import TRANSPORT_KEYS, LanguageModelConfig
from jalign.parallel.mesh import make_mesh
from jalign.rewards.judge import Judge
from jalign.rewards.server import ServerJudge
from jalign.run import data as build_data
from jalign.run.judge import judge_of

FeedbackConfig = LabelConfig | ReviseConfig | PromptsConfig

# None of these changes the rows that come of an item, so they may change between two tries.
_NOT_IDENTITY = ("out", "file", "limit", *TRANSPORT_KEYS)


def rows_of(options: FeedbackConfig) -> list[Row]:
    """The input rows, at most `limit` of them."""
    return build_data.rows_of(options.file, "train")[: options.limit or None]


@contextmanager
def loaded_judge(options: LanguageModelConfig) -> Iterator[Judge]:
    """A judge over all devices, whose connections are closed in the end."""
    # Weights are split over all devices, so a judge may be larger than one of them.
    mesh = make_mesh(fsdp=-1)
    with jax.set_mesh(mesh):
        judge = judge_of(options, mesh)
        try:
            yield judge
        finally:
            if isinstance(judge, ServerJudge):
                judge.close()


def write(
    options: FeedbackConfig,
    items: Sequence[object],
    make: Make,
    what: str,
    display: Display,
    *,
    judge: Judge,
    facts: Mapping[str, object] | None = None,
    most: int | None = None,
) -> list[Row]:
    """Write the output file of a command, and show what was dropped and why.

    Args:
      items: inputs as JSON can hold them.
      make: turns a batch of them into rows.
      what: the rows, in words.
      judge: the model that is queried; a server's last error is added to ours.
      facts: what decides the rows besides `options` and `items`.
      most: rows after which no further batch is made; None: no limit.

    Raises:
      ValueError: as `make_file`.
    """
    identity = {**_flat(asdict(options)), **(facts or {})}
    done = 0
    with display.phase(f"asking for {what}", len(items)) as advance:

        def counted(batch: Sequence[Any], first: int, rows: list[Row]) -> list[Made]:
            nonlocal done
            results = make(batch, first, rows)
            # A resumed journal begins behind 0; the first advance covers what it holds.
            advance(first + len(batch) - done)
            done = first + len(batch)
            return results

        try:
            rows, dropped = make_file(
                options.out,
                items,
                counted,
                identity=identity,
                size=options.batch_size,
                most=most,
                say=display.say,
            )
        except ValueError as error:
            # `make_file` only knows that no row came; the server's error is the reason.
            if failure := last_failure(judge):
                raise ValueError(f"{error}; {failure}") from error
            raise
    for reason, count in dropped.most_common():
        display.say(f"dropped: {count} times {reason}")
    display.say(f"{len(rows)} {what} written to {options.out}")
    return rows


def show_metrics(
    judge: Judge, display: Display, metrics: Mapping[str, float] | None = None
) -> None:
    """Show a judge's position bias, requests, cost and failures."""
    metrics = {**(metrics or {}), **(judge.metrics() if isinstance(judge, ServerJudge) else {})}
    if metrics:
        display.say("  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    if failure := last_failure(judge):
        display.say(failure)


def last_failure(judge: Judge) -> str:
    """How many questions a server did not answer, and its last error; "" if it answered all."""
    counts = judge.counts if isinstance(judge, ServerJudge) else None
    if not (counts and counts.failed):
        return ""
    return f"{counts.failed} questions got no answer of the server, the last: {counts.last_error}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted name, those that do not decide the rows left out."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif name not in _NOT_IDENTITY:
            flat[prefix + name] = value
    return flat
