"""How far judges agree with people on the same answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jalign.data.journal import fingerprint
from jalign.eval import metrics
from jalign.eval.arena.answers import Answer
from jalign.eval.arena.tables import identity_of, read_table
from jalign.eval.arena.verdicts import Battle, items_of

HUMAN = "human"
"""Folder of the verdicts of people, beside those of judges."""

Pair = tuple[str, str]


def agreement_with_people(
    folder: Path,
    human: Mapping[Pair, Sequence[Battle]],
    answers: Mapping[str, Sequence[Answer]],
) -> dict[str, dict[str, Any]]:
    """Agreement of every judge whose complete verdicts on these answers lie beside those of people.

    Args:
      folder: with a folder of verdicts per judge.
      human: names of two models -> verdicts of people.

    Returns:
      Name of a judge -> `verdicts` (number of comparisons), `rate` and `kappa` with 95 % intervals;
      a win, a tie and a loss are three labels.
    """
    out = {}
    judges = folder.iterdir() if folder.is_dir() else ()
    for judge in sorted(path for path in judges if path.name != HUMAN):
        files = {(a, b): judge / f"{a}__{b}.parquet" for a, b in human}
        if not all(_same_answers(file, answers, *pair) for pair, file in files.items()):
            continue
        labels = [
            (_label(row["first"], row["second"]), _label(by_people.first, by_people.second))
            for pair, file in files.items()
            for row, by_people in zip(read_table(file), human[pair], strict=True)
        ]
        known = [(x, y) for x, y in labels if x is not None and y is not None]
        if known:
            result = metrics.agreement(*map(np.array, zip(*known, strict=True)))
            kappa = None if np.isnan(result.kappa.value) else result.kappa._asdict()
            rate = result.rate._asdict()
            out[judge.name] = {"verdicts": len(known), "rate": rate, "kappa": kappa}
    return out


def _same_answers(file: Path, answers: Mapping[str, Sequence[Answer]], a: str, b: str) -> bool:
    if not file.is_file():
        return False
    prompts = [answer.prompt for answer in answers[a]]
    return identity_of(file).get("items") == fingerprint(items_of(prompts, answers[a], answers[b]))


def _label(first: float | None, second: float | None) -> float | None:
    if first is None or second is None:
        return None
    return float(np.sign(first + second - 1))
