"""The results as files: JSON, a parquet of all samples and verdicts, Markdown and an HTML page."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jalign import store
from jalign.leaderboard.board import read_leaderboard
from jalign.leaderboard.cells import read_results
from jalign.leaderboard.columns import markdown
from jalign.leaderboard.games import against
from jalign.leaderboard.page import html
from jalign.leaderboard.run import START
from jalign.leaderboard.spec import Spec
from jalign.leaderboard.train import SAMPLES


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
        "leaderboard.html": html(board),
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
