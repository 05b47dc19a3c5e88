"""The results of a method as arrays, read from the folder of a leaderboard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from jalign.leaderboard.cells import Cell, Result, grid_of, read_results, selected_rate
from jalign.leaderboard.run import START
from jalign.leaderboard.spec import Spec
from jalign.leaderboard.train import SAMPLES
from jalign.report.record import load


class Point(NamedTuple):
    """One evaluation on the validation prompts, of any rate and seed.

    Attributes:
      kl, true: [n] of each prompt.
      seconds: device-seconds of training until then.
    """

    rate: float
    seed: int
    step: int
    seconds: float
    kl: np.ndarray
    true: np.ndarray


@dataclass(frozen=True)
class MethodResult:
    """A method at its selected learning rate. Letters: S seeds, n test prompts, m test pairs.

    Attributes:
      seeds: of the rows of the arrays.
      true, proxy, kl, lengths: [S, n] of the answers to the test prompts.
      margins: [S, m] implicit-reward margins of the test pairs, nats.
      nll: [S, t] nats of the held-out texts.
      ids, texts: [S][n] token ids and text of each answer.
      points: evaluations during training, all rates and seeds.
      seconds, tokens, models: mean device-seconds and tokens read, and models held.
      step_bytes: memory of the training step by the compiler's account: arguments, outputs and
        temporary values; None where it keeps none.
    """

    name: str
    rate: float
    seeds: tuple[int, ...]
    true: np.ndarray
    lengths: np.ndarray
    kl: np.ndarray
    proxy: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    margins: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    nll: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    ids: Sequence[Sequence[Sequence[int]]] = ()
    texts: Sequence[Sequence[str]] = ()
    points: tuple[Point, ...] = ()
    seconds: float = 0.0
    tokens: float = 0.0
    models: int = 1
    step_bytes: float | None = None


@dataclass(frozen=True)
class Start:
    """The start of the leaderboard.

    Attributes:
      true, lengths: [n] of its answers to the test prompts.
      nll, text_tokens: [t] nats and tokens of the held-out texts.
      validation: [v] true rewards on the validation prompts.
      proxy_seconds: device-seconds of training the proxy.
      ids, texts, prompts: [n] token ids and text of each answer, and its prompt.
    """

    true: np.ndarray
    lengths: np.ndarray
    nll: np.ndarray
    text_tokens: np.ndarray
    validation: np.ndarray
    proxy_seconds: float
    ids: Sequence[Sequence[int]] = ()
    texts: Sequence[str] = ()
    prompts: Sequence[str] = ()


def read_start(out: Path) -> Start:
    """What was measured of the start."""
    facts = json.loads((out / START / "start.json").read_text(encoding="utf-8"))
    samples = pq.read_table(out / START / SAMPLES)
    return Start(
        np.array(samples["true"]),
        np.array(samples["tokens"], float),
        np.array(facts["nll"]),
        np.array(facts["text_tokens"], float),
        np.array(facts["each_true"]),
        facts["proxy_seconds"],
        *(samples[name].to_pylist() for name in ("ids", "response", "prompt")),
    )


def read_methods(spec: Spec, out: Path) -> dict[str, MethodResult]:
    """Every method whose rate is selected and that has a finished seed, by the largest budget."""
    results, tokens = read_results(out), max(spec.tokens)
    methods = {}
    for name, method in spec.methods.items():
        rate = selected_rate(spec, method, tokens, results)
        if rate is None:
            continue
        cells = [Cell(name, rate, seed, tokens) for seed in range(spec.seeds)]
        cells = [cell for cell in cells if cell in results and "nll" in results[cell]]
        if cells:
            rates = grid_of(spec, method)
            methods[name] = _method(out, cells, rates, results)
    return methods


def _method(
    out: Path, cells: Sequence[Cell], rates: Sequence[float], results: Mapping[Cell, Result]
) -> MethodResult:
    tables = [pq.read_table(out / "cells" / cell.name / SAMPLES) for cell in cells]
    stack = lambda name: np.stack([np.array(t[name], float) for t in tables])  # noqa: E731
    ends = [results[cell] for cell in cells]
    first = cells[0]
    mine = [c for c in results if (c.method, c.tokens) == (first.method, first.tokens)]
    points = [p for c in mine if c.rate in rates for p in _points(c, results[c])]
    return MethodResult(
        first.method,
        first.rate,
        tuple(cell.seed for cell in cells),
        *(stack(name) for name in ("true", "tokens", "kl", "proxy")),
        margins=np.stack([np.array(r["margins"]) for r in ends]),
        nll=np.stack([np.array(r["nll"]) for r in ends]),
        ids=[t["ids"].to_pylist() for t in tables],
        texts=[t["response"].to_pylist() for t in tables],
        points=tuple(points),
        seconds=float(np.mean([r["seconds"] for r in ends])),
        tokens=float(np.mean([r["tokens_read"] for r in ends])),
        models=ends[0]["models"],
        step_bytes=_step_bytes(out / "cells" / first.name),
    )


def _step_bytes(folder: Path) -> float | None:
    planned = load(str(folder), responses=False).happened("memory")
    return float(sum(planned[-1]["bytes"].values())) if planned else None


def _points(cell: Cell, result: dict[str, Any]) -> list[Point]:
    return [
        Point(
            cell.rate, cell.seed, p["step"], p["seconds"], np.array(p["each_kl"]),
            np.array(p["each_true"]),
        )
        for p in result["curve"]
        if "each_true" in p
    ]  # fmt: skip
