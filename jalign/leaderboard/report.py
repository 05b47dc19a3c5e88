"""The results as files: JSON, a parquet of all samples and verdicts, Markdown and an HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jalign import store
from jalign.eval.metrics import Estimate
from jalign.leaderboard.cells import read_results
from jalign.leaderboard.claims import Claim, judge_claims
from jalign.leaderboard.results import read_methods, read_start
from jalign.leaderboard.run import START
from jalign.leaderboard.spec import Spec
from jalign.leaderboard.table import KL_MARKS, Row, against, rows_of
from jalign.leaderboard.train import SAMPLES


@dataclass(frozen=True)
class Leaderboard:
    """What the finished cells say.

    Attributes:
      rows: of the main methods, best true reward first.
      variants: of the methods in other groups.
      claims: verdicts on the claims of the literature.
      seconds: the device-seconds of `Row.at_seconds`.
      cells, cpu_hours: finished cells, and the device-hours of their training.
      hashes: of data, config and code; several codes if cells were run by several.
    """

    rows: list[Row]
    variants: list[Row]
    claims: list[Claim]
    seconds: float
    cells: int
    cpu_hours: float
    hashes: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; intervals are {value, low, high}."""
        return _plain(vars(self))


def read_leaderboard(spec: Spec, out: str | Path, *, samples: int = 1000) -> Leaderboard:
    """The tables of what is finished in a folder.

    Raises:
      ValueError: nothing is finished.
    """
    folder = store.local(out, "the folder of a leaderboard")
    results = read_results(folder)
    methods = read_methods(spec, folder)
    if not methods:
        raise ValueError(
            f"no method of {folder} has its learning rate selected yet: {len(results)} cells are "
            "finished"
        )
    start = read_start(folder)
    # together, so that Elo and Holm are over all of them
    rows, seconds = rows_of(methods, start, samples=samples)
    main = {name for name, method in spec.methods.items() if method.group == "main"}
    hashes = {
        kind: sorted({result["identity"][kind] for result in results.values()})
        for kind in ("data", "config", "code")
    }
    hours = sum(result["seconds"] or 0.0 for result in results.values()) / 3600
    return Leaderboard(
        [row for row in rows if row.name in main],
        [row for row in rows if row.name not in main],
        judge_claims(methods),
        seconds,
        len(results),
        hours,
        hashes,
    )


def write_report(spec: Spec, out: str | Path, *, samples: int = 1000) -> str:
    """Write leaderboard.json, samples.parquet, leaderboard.md and leaderboard.html; the Markdown.

    Raises:
      ValueError: nothing is finished.
    """
    folder = store.local(out, "the folder of a leaderboard")
    board = read_leaderboard(spec, folder, samples=samples)
    text = markdown(board)
    content = {
        "leaderboard.json": json.dumps(board.to_json(), indent=1, allow_nan=False) + "\n",
        "leaderboard.md": text,
        "leaderboard.html": page(board),
    }
    for name, value in content.items():
        store.write(folder / name, lambda f, value=value: f.write(value.encode()))
    _write_samples(folder)
    return text


def _write_samples(out: Path) -> None:
    """Every answer to a test prompt, with its rewards and the verdict against the start."""
    start = pq.read_table(out / START / SAMPLES)
    tables = [_labelled(start, start, "start", 0.0, 0, 0)]
    for cell in read_results(out):
        file = out / "cells" / cell.name / SAMPLES
        if file.exists():
            table = pq.read_table(file)
            tables.append(_labelled(table, start, cell.method, cell.rate, cell.seed, cell.tokens))
    joined = pa.concat_tables(tables)
    store.write(out / SAMPLES, lambda f: pq.write_table(joined, f))


def _labelled(
    table: pa.Table, start: pa.Table, method: str, rate: float, seed: int, tokens: int
) -> pa.Table:
    wins = against(table["true"].to_numpy(), start["true"].to_numpy())
    # the true reward has no order of answers: both games of a pair have one verdict
    columns = {"method": [method], "rate": [rate], "seed": [seed], "budget": [tokens]}
    for name, value in columns.items():
        table = table.append_column(name, pa.array(value * len(wins)))
    return table.append_column("p_first", pa.array(wins)).append_column("p_second", pa.array(wins))


# ---- tables

QUALITY = (
    "method", "rate", "seeds", "true reward", "wins", "wins at equal length", "Elo", "p", "area",
    "at equal seconds", "accuracy", "ECE",
)  # fmt: skip
COST = (
    "method", *(f"at {x:g} nats" for x in KL_MARKS), "KL", "length", "distinct-2", "NLL", "s",
    "tokens/s", "models", "rates",
)  # fmt: skip
CLAIM_HEAD = ("claim", "verdict", "difference", "p", "source")


def quality_of(row: Row) -> tuple[str, ...]:
    """The texts of a row, in the order of `QUALITY`."""
    return (
        row.name, f"{row.rate:g}", str(row.seeds), _interval(row.true), _interval(row.win),
        _interval(row.lc_win), _interval(row.elo, 0), _p(row.p_value), f"{row.area:.3f}",
        f"{row.at_seconds:.3f}", _interval(row.accuracy), f"{row.ece:.3f}",
    )  # fmt: skip


def cost_of(row: Row) -> tuple[str, ...]:
    """The texts of a row, in the order of `COST`."""
    return (
        row.name, *(f"{x:.3f}" for x in row.at_kl), f"{row.kl:.1f}", f"{row.length_ratio:.2f}",
        f"{row.distinct_2:.2f}", f"{row.nll_change:+.3f}", f"{row.seconds:.1f}",
        f"{row.tokens_per_second:.0f}", str(row.models),
        f"{row.worst_rate:.2f} to {row.best_rate:.2f}",
    )  # fmt: skip


def cells_of_claim(claim: Claim) -> tuple[str, ...]:
    """The texts of a claim, in the order of `CLAIM_HEAD`."""
    verdict = claim.verdict + (f" ({claim.note})" if claim.note else "")
    difference = _interval(claim.estimate)
    p = "" if claim.p_value is None else _p(claim.p_value)
    return (claim.text, verdict, difference, p, claim.source)


def tables_of(board: Leaderboard) -> dict[str, tuple[Sequence[str], list[tuple[str, ...]]]]:
    """Title -> (head, rows); those without rows are left out."""
    rows, variants = board.rows, board.variants
    tables = {
        "Methods": (QUALITY, [quality_of(row) for row in rows]),
        "What it costs": (COST, [cost_of(row) for row in rows]),
        "Variants": (QUALITY, [quality_of(row) for row in variants]),
        "What variants cost": (COST, [cost_of(row) for row in variants]),
        "Claims": (CLAIM_HEAD, [cells_of_claim(claim) for claim in board.claims]),
    }
    return {title: table for title, table in tables.items() if table[1]}


def markdown(board: Leaderboard) -> str:
    """The tables for a README."""
    tables = [_markdown_table(*table) for table in tables_of(board).values()]
    return "\n\n".join([*tables, _facts(board)]) + "\n"


def _facts(board: Leaderboard) -> str:
    hashes = "; ".join(f"{k} {', '.join(x[:12] for x in v)}" for k, v in board.hashes.items())
    return (
        f"{board.cells} cells, {board.cpu_hours:.2f} device-hours of training. Equal seconds are "
        f"{board.seconds:.1f}. SHA-256: {hashes}."
    )


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(board: Leaderboard) -> str:
    """A self-contained HTML page."""
    tables = "".join(
        f"<h2>{escape(title)}</h2>{_html_table(*table)}"
        for title, table in tables_of(board).items()
    )
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Leaderboard</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style>"
        f"<h1>Leaderboard</h1>{tables}<p>{escape(_facts(board))}</p></html>\n"
    )


_STYLE = (
    ":root{color-scheme:light dark}body{font:14px system-ui;margin:1.5em}"
    "div{overflow-x:auto}table{border-collapse:collapse}"
    "td,th{padding:.25em .6em;border-bottom:1px solid #8884;text-align:right;white-space:nowrap}"
    "td:first-child,th:first-child{text-align:left}"
)


def _html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    line = lambda tag, cells: "".join(f"<{tag}>{escape(x)}</{tag}>" for x in cells)  # noqa: E731
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<div><table><tr>{line('th', head)}</tr>{body}</table></div>"


def _interval(x: Estimate | None, digits: int = 3) -> str:
    if x is None:
        return ""
    return f"{x.value:.{digits}f} [{x.low:.{digits}f}, {x.high:.{digits}f}]"


def _p(x: float) -> str:
    return "<0.001" if x < 0.001 else f"{x:.3f}"


def _plain(x: Any) -> Any:
    if hasattr(x, "_asdict"):
        return _plain(x._asdict())
    if isinstance(x, Mapping):
        return {str(name): _plain(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
