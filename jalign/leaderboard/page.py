"""A leaderboard as a self-contained HTML page."""

from __future__ import annotations

from typing import Any

from jalign.eval.metrics import Estimate
from jalign.leaderboard.board import Leaderboard
from jalign.leaderboard.columns import Table, Value, facts, tables_of
from jalign.report.write import render


def html(board: Leaderboard) -> str:
    """The page: tables that can be sorted, intervals drawn beside their numbers, samples."""
    tables = [_table(table) for table in tables_of(board)]
    sections = {table["id"]: table["title"] for table in tables}
    if board.samples:
        sections["samples"] = "Samples"
    return render(
        "leaderboard.html",
        title="Leaderboard",
        subtitle=facts(board),
        sections=list(sections.items()),
        tables=tables,
        samples=[
            {"prompt": prompt, "answers": [(n, *answer) for n, answer in answers.items()]}
            for prompt, answers in board.samples
        ],
        several=True,
    )


def _table(table: Table) -> dict[str, Any]:
    columns = []
    for column in table.columns:
        values = [column.of(row) for row in table.rows]
        ends = [x for v in values if isinstance(v, Estimate) for x in (v.low, v.high)]
        low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
        cells = [
            {"text": column.text(row), "key": _key(value), "strip": _strip(value, low, high)}
            for row, value in zip(table.rows, values, strict=True)
        ]
        number = any(isinstance(v, int | float | Estimate) for v in values)
        columns.append({"head": column.head, "number": number, "cells": cells})
    rows = list(zip(*(column["cells"] for column in columns), strict=True))
    name = table.title.lower().replace(" ", "-")
    return {"id": name, "title": table.title, "columns": columns, "rows": rows}


def _key(value: Value) -> str | None:
    """What a cell is sorted by; None: its text."""
    if isinstance(value, str):
        return None
    return "" if value is None else repr(float(value[0] if isinstance(value, Estimate) else value))


def _strip(value: Value, low: float, high: float) -> tuple[float, ...] | None:
    """Ends and middle of an interval, in percent of the range of its column."""
    if not isinstance(value, Estimate) or high <= low:
        return None
    return tuple(
        round(100 * (x - low) / (high - low), 1) for x in (value.low, value.value, value.high)
    )
