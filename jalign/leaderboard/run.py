"""Run the cells of a leaderboard one after another in this process; resumable at any point."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jalign import store
from jalign.leaderboard.cells import (
    Cell,
    Result,
    next_cell,
    read_results,
    start_cell,
    write_result,
)
from jalign.leaderboard.measure import Measure
from jalign.leaderboard.setting import Interrupted, Setting
from jalign.leaderboard.spec import Spec
from jalign.leaderboard.train import MODEL, SAMPLES, train_cell, write_samples
from jalign.train.online_metrics import distinct

SPEC = "spec.json"
START = "start"


class Progress(NamedTuple):
    """How far a call came.

    Attributes:
      ran: cells that this call finished.
      left: cells of the spec that are not finished.
    """

    ran: int
    left: int


def run_cells(
    spec: Spec,
    out: str | Path,
    *,
    methods: Sequence[str] = (),
    seeds: Sequence[int] = (),
    max_minutes: float = 0.0,
    say: Callable[[str], object] = lambda text: None,
) -> Progress:
    """Run the cells that are not finished, in an order in which every prefix is useful: the grid of
    each method at seed 0, then the other seeds. A killed call loses the cell it was in, which
    resumes at its last checkpoint.

    Args:
      out: folder of the leaderboard, on this machine.
      methods: only these, with those they refer to; empty: all.
      seeds: only these; empty: all. Seed 0 selects the learning rates.
      max_minutes: start no cell after so many minutes; 0: no limit.
      say: called with a line per cell.

    Raises:
      ValueError: another spec wrote to this folder, or an unknown method.
    """
    folder, began = store.local(out, "the folder of a leaderboard"), time.monotonic()
    asked_seeds = _seeds(spec, seeds)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = spec.only(list(methods)) if methods else spec
    setting = Setting(spec, folder)
    with store.lock_folder(folder):
        _check_same(spec, setting, folder)
        results, ran = read_results(folder), 0
        measure = Measure(setting)
        while True:
            cell, left = next_cell(wanted, results, asked_seeds)
            over = max_minutes and time.monotonic() - began > 60 * max_minutes
            if cell is None or over:
                return Progress(ran, left)
            try:
                _measure_start(measure, folder)
                results[cell] = _run_cell(setting, measure, cell, results, folder)
            except Interrupted:
                say(f"stopped in {cell.name}: the same command continues there")
                return Progress(ran, left)
            ran += 1
            say(_line(results[cell], left - 1))


def _run_cell(
    setting: Setting, measure: Measure, cell: Cell, results: dict[Cell, Result], out: Path
) -> Result:
    before = start_cell(setting.spec, cell, results)
    start = str(out / "cells" / before.name / MODEL) if before else None
    keep = any(m.after == cell.method for m in setting.spec.methods.values())
    folder = out / "cells" / cell.name
    result = train_cell(setting, measure, cell, folder, start, keep)
    result |= {
        "identity": setting.identity,
        "method": _plain(vars(setting.spec.methods[cell.method])),
    }
    write_result(folder, result)
    return result


def _measure_start(measure: Measure, out: Path) -> None:
    """The answers of the start, which every method is compared with, and its NLL."""
    file = out / START / "start.json"
    if file.exists():
        return
    start = measure.setting.start
    write_samples(out / START / SAMPLES, measure.answers(start, measure.test, 0))
    curve = measure.answers(start, measure.validation, 0)
    facts = {
        "nll": measure.nll(start).tolist(),
        "text_tokens": measure.texts.lengths.sum(-1).tolist(),
        "true": float(curve.true.mean()),
        "proxy": float(curve.proxy.mean()),
        "length": float(curve.lengths.mean()),
        "distinct_2": distinct(curve.ids, 2),
        "each_true": curve.true.tolist(),
        "proxy_seconds": measure.setting.proxy_seconds,
    }
    store.write(file, lambda f: f.write((json.dumps(facts) + "\n").encode()))


def _seeds(spec: Spec, seeds: Sequence[int]) -> list[int]:
    if wrong := [s for s in seeds if not 0 <= s < spec.seeds]:
        raise ValueError(f"seeds are 0 to {spec.seeds - 1}, got {wrong}")
    return sorted(set(seeds)) or list(range(spec.seeds))


def _check_same(spec: Spec, setting: Setting, out: Path) -> None:
    """Cells of different data or settings are not comparable."""
    file, now = out / SPEC, _plain({"shared": spec.shared(), "data": setting.identity["data"]})
    if not file.exists():
        text = json.dumps(now, indent=1) + "\n"
        store.write(file, lambda f: f.write(text.encode()))
        return
    saved = json.loads(file.read_text(encoding="utf-8"))
    if saved != now:
        keys = [k for k in now["shared"] if saved["shared"].get(k) != now["shared"][k]]
        what = ", ".join(keys) or "the data"
        raise ValueError(f"{out} belongs to another leaderboard: {what} differ; give another --out")
    for cell, result in read_results(out).items():
        method = spec.methods.get(cell.method)
        if method and result["method"] != _plain(vars(method)):
            raise ValueError(
                f"methods.{cell.method} was another when {cell.name} ran: give it another name, "
                "or delete that folder"
            )


def _plain(value: Any) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(value))


def _line(result: Result, left: int) -> str:
    point, cell = result["curve"][-1], Cell(**result["cell"])
    return (
        f"{cell.name}: true {point['true']:.3f}, proxy {point['proxy']:.3f}, KL {point['kl']:.2f}, "
        f"{result['seconds'] or 0:.1f} s; {left} cells left"
    )
