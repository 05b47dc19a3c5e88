"""The tables of a leaderboard as values, read from its folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jalign import store
from jalign.leaderboard.cells import read_results
from jalign.leaderboard.claims import Claim, judge_claims
from jalign.leaderboard.results import MethodResult, Start, read_methods, read_start
from jalign.leaderboard.spec import Method, Spec
from jalign.leaderboard.table import Row, rows_of
from jalign.taxonomy import COLUMNS, taxonomy

AXES = ("feedback", "reward", "level", "reference", "policy", "SFT")
"""Columns of the survey's table that tell methods apart."""
PROMPTS, BEST = 5, 3
"""Prompts and rows of `Leaderboard.samples`."""


class Sample(NamedTuple):
    """A test prompt.

    Attributes:
      answers: name of a row -> (text, true reward).
    """

    prompt: str
    answers: dict[str, tuple[str, float]]


@dataclass(frozen=True)
class Leaderboard:
    """What the finished cells say.

    Attributes:
      rows: of the main methods, best true reward first.
      variants: of the methods in other groups.
      claims: verdicts on the claims of the literature.
      kinds: what each method is, by the survey's axes (`AXES`).
      samples: a few test prompts and their answers: those of the start and of the first rows.
      seconds: the device-seconds of `Row.at_seconds`.
      cells, cpu_hours: finished cells, and the device-hours of their training.
      hashes: of data, config and code; several codes if cells were run by several.
    """

    rows: list[Row]
    variants: list[Row]
    claims: list[Claim]
    kinds: dict[str, tuple[str, ...]]
    samples: list[Sample]
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
        {name: _kind(spec.methods[name]) for name in methods},
        _samples([methods[row.name] for row in rows[:BEST]], start),
        seconds,
        len(results),
        hours,
        hashes,
    )


def _kind(method: Method) -> tuple[str, ...]:
    cells = dict(zip(COLUMNS, taxonomy(method.row), strict=True))
    return tuple(cells[name] for name in AXES)


def _samples(best: Sequence[MethodResult], start: Start) -> list[Sample]:
    samples = []
    for i in range(min(PROMPTS, len(start.prompts))):
        answers = {"start": (start.texts[i], float(start.true[i]))}
        # of the first seed
        answers |= {m.name: (m.texts[0][i], float(m.true[0, i])) for m in best}
        samples.append(Sample(start.prompts[i], answers))
    return samples


def _plain(x: Any) -> Any:
    if hasattr(x, "_asdict"):
        return _plain(x._asdict())
    if isinstance(x, Mapping):
        return {str(name): _plain(value) for name, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x
