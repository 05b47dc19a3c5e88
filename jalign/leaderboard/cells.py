"""The cells of a leaderboard: method x learning rate x seed x budget, and which is next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jalign import store
from jalign.leaderboard.spec import Method, Spec

RESULT = "result.json"
Result = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of a method."""

    method: str
    rate: float
    seed: int
    tokens: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.method}-{self.rate:g}-{self.seed}-{self.tokens}"


def read_results(out: Path) -> dict[Cell, Result]:
    """The finished cells of a leaderboard's folder."""
    files = sorted((out / "cells").glob(f"*/{RESULT}"))
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return {Cell(**result["cell"]): result for result in results}


def write_result(folder: Path, result: Result) -> None:
    """Written last and in one piece: a cell with a result is finished."""
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    store.write(folder / RESULT, lambda file: file.write(text.encode()))


def grid_of(spec: Spec, method: Method) -> tuple[float, ...]:
    """The learning rates that are tried for a method."""
    return grid_of(spec, spec.methods[method.like]) if method.like else method.rates or spec.rates


def selected_rate(
    spec: Spec, method: Method, tokens: int, results: Mapping[Cell, Result]
) -> float | None:
    """The rate with the highest true reward on the validation prompts at seed 0, among those within
    the KL limit if there are any; None before the grid is complete.
    """
    name, grid = method.like or method.name, grid_of(spec, method)
    if len(grid) == 1:
        return grid[0]
    ends = {rate: results.get(Cell(name, rate, 0, tokens)) for rate in grid}
    if any(result is None for result in ends.values()):
        return None
    curve = {rate: result["curve"][-1] for rate, result in ends.items() if result}
    within = [r for r in grid if not spec.kl_limit or curve[r]["kl"] <= spec.kl_limit]
    if not within:
        return min(grid, key=lambda rate: curve[rate]["kl"])
    return max(within, key=lambda rate: curve[rate]["true"])


def next_cell(
    spec: Spec, results: Mapping[Cell, Result], seeds: Sequence[int]
) -> tuple[Cell | None, int]:
    """(the next cell that can be run, how many are left): the grid of every method at seed 0, then
    the other seeds at the selected rates. Later cells depend on results, so the count assumes one
    rate for each.
    """
    ready: list[Cell] = []
    left = 0
    for seed in seeds:
        for tokens in spec.tokens:
            for method in spec.methods.values():
                rate = selected_rate(spec, method, tokens, results)
                search = seed == 0 and not method.like
                rates = grid_of(spec, method) if search else [rate]
                for r in rates:
                    cell = None if r is None else Cell(method.name, r, seed, tokens)
                    if cell in results:
                        continue
                    left += 1
                    if cell and _start_of(spec, method, cell, results) is not False:
                        ready.append(cell)
    return (ready[0] if ready else None), left


def _start_of(
    spec: Spec, method: Method, cell: Cell, results: Mapping[Cell, Result]
) -> Cell | bool | None:
    """The cell whose result it starts from; None: the start; False: that cell is not finished."""
    if not method.after:
        return None
    before = spec.methods[method.after]
    rate = selected_rate(spec, before, cell.tokens, results)
    if rate is None:
        return False
    start = Cell(before.name, rate, cell.seed, cell.tokens)
    return start if start in results else False


def start_cell(spec: Spec, cell: Cell, results: Mapping[Cell, Result]) -> Cell | None:
    """The finished cell whose policy a cell starts from; None: the start of the leaderboard."""
    start = _start_of(spec, spec.methods[cell.method], cell, results)
    assert start is not False, "next_cell returns only cells that can start"
    return start if isinstance(start, Cell) else None
