"""From rows to records of the kind wanted, converting where that makes sense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from jalign.data.examples import Report
from jalign.data.records import Record, Row, parse, recognise

SOURCE_COLUMN = "_source"
"""Column in which a mixture notes where a row comes from."""


def _without(extras: dict, *names: str) -> dict:
    return {k: v for k, v in extras.items() if k not in names}


def pairs_to_binary(record: Record) -> list[Record]:
    """The chosen response with label 1 and the rejected one with label 0."""
    extras = _without(record.extras, "margin", "score_chosen", "score_rejected")
    return [
        record._replace(responses=[response], extras=extras | {"label": label})
        for response, label in zip(record.responses, (1.0, 0.0), strict=True)
    ]


def pairs_to_supervised(record: Record) -> list[Record]:
    """The chosen response."""
    extras = _without(record.extras, "margin", "score_chosen", "score_rejected")
    return [record._replace(responses=record.responses[:1], extras=extras)]


def lists_to_pairs(record: Record) -> list[Record]:
    """The best response against the worst, margin the difference in score; not when all tie."""
    scores = record.extras["scores"]
    if not scores or max(scores) == min(scores):
        return []
    best, worst = int(np.argmax(scores)), int(np.argmin(scores))
    return [
        record._replace(
            responses=[record.responses[best], record.responses[worst]],
            extras=_without(record.extras, "scores") | {"margin": scores[best] - scores[worst]},
        )
    ]


def lists_to_supervised(record: Record) -> list[Record]:
    """The best response, the first of equals."""
    best = int(np.argmax(record.extras["scores"]))
    return [
        record._replace(
            responses=[record.responses[best]], extras=_without(record.extras, "scores")
        )
    ]


def binary_to_supervised(record: Record) -> list[Record]:
    """The response when it is labelled desirable."""
    keep = record.extras["label"] > 0
    return [record._replace(extras=_without(record.extras, "label"))] if keep else []


def to_prompts(record: Record) -> list[Record]:
    """The prompt alone."""
    return [record._replace(responses=[], extras={})] if record.prompt else []


CONVERSIONS: dict[tuple[str, str], Callable[[Record], list[Record]]] = {
    ("pairs", "binary"): pairs_to_binary,
    ("pairs", "supervised"): pairs_to_supervised,
    ("lists", "pairs"): lists_to_pairs,
    ("lists", "supervised"): lists_to_supervised,
    ("binary", "supervised"): binary_to_supervised,
    ("pairs", "prompts"): to_prompts,
    ("lists", "prompts"): to_prompts,
}


def convert(records: Iterable[Record], kind: str, wanted: str) -> list[Record]:
    """Records of one kind made into another; a record that says nothing in the new kind disappears.

    Raises:
      ValueError: there is no such conversion.
    """
    wanted = "prompts" if wanted == "samples" else wanted
    if kind == wanted:
        return list(records)
    if (kind, wanted) not in CONVERSIONS:
        there = ", ".join(f"{a} to {b}" for a, b in CONVERSIONS)
        raise ValueError(f"no conversion {kind} to {wanted}; there is: {there}")
    fn = CONVERSIONS[kind, wanted]
    return [new for record in records for new in fn(record)]


def to_records(rows: Sequence[Row], wanted: str | None = None) -> tuple[list[Record], Report]:
    """Rows, also of a mixture, as records of one kind, and a report to hand on to `tokenize`.

    Sources of a mixture are recognised one by one, so that their columns may differ.

    Raises:
      ValueError: unrecognised columns, or a row that does not parse (with its number).
    """
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.get(SOURCE_COLUMN, ""), []).append(i)
    report = Report(read=len(rows), sources=tuple(sorted(name for name in groups if name)))
    out: list[Record] = []
    kinds, explanations = set(), []
    for name, members in groups.items():
        sample = [rows[i] for i in members[:8]]
        kind, explanation = recognise(_columns(sample), sample, wanted)
        explanations.append(f"{name}: {explanation}" if name else explanation)
        target = ("prompts" if wanted == "samples" else wanted) or kind
        kinds.add(target)
        for i in members:
            try:
                record = parse(rows[i], kind)._replace(row=i, source=name)
            except (ValueError, TypeError) as error:
                where = f"row {i}" + (f" of {name}" if name else "")
                raise ValueError(f"{where}: {error}") from error
            made = convert([record], kind, target)
            if not made:
                report.drop(f"nothing to learn as {target}")
            out += made
    if len(kinds) > 1:
        raise ValueError(f"a mixture of different kinds: {'; '.join(explanations)}")
    report.kind, report.explanation = next(iter(kinds), ""), "; ".join(explanations)
    return sorted(out, key=lambda r: r.row), report


def _columns(sample: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(c for row in sample for c in row if c != SOURCE_COLUMN))
