"""Verdicts as win rates, at equal length too, and as Elo ratings: JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jalign.eval import metrics
from jalign.eval.arena.answers import Answer
from jalign.eval.arena.verdicts import Battle

Summary = dict[str, Any]
Pair = tuple[str, str]


def summary_of(
    answers: Mapping[str, Sequence[Answer]],
    battles: Mapping[Pair, Sequence[Battle]],
    *,
    ordered: bool,
    seed: int = 0,
) -> Summary:
    """Everything that the verdicts of one judge say.

    Args:
      answers: name of a model -> its answers.
      battles: names of two models (A, B) -> verdicts on their answers.
      ordered: whether the judge was asked in both orders; otherwise it cannot contradict itself,
        and there is no position consistency.
      seed: of the bootstraps.

    Returns:
      `models`: per model length and share of answers that were cut; `pairs`: per pair its win rate;
      `elo`: ratings of three or more models, else None.
    """
    return {
        "models": {name: lengths_of(rows) for name, rows in answers.items()},
        "pairs": [
            {"a": a, "b": b, **pair_summary(rows, ordered=ordered, seed=seed)}
            for (a, b), rows in battles.items()
        ],
        "elo": elo(list(answers), battles) if len(answers) > 2 else None,
    }


def lengths_of(answers: Sequence[Answer]) -> Summary:
    """Mean lengths, and the share of answers that were cut at max_new_tokens."""
    return {
        "answers": len(answers),
        "characters": float(np.mean([len(answer.response) for answer in answers])),
        "tokens": float(np.mean([answer.tokens for answer in answers])),
        "cut": float(np.mean([not answer.finished for answer in answers])),
    }


def pair_summary(battles: Sequence[Battle], *, ordered: bool = True, seed: int = 0) -> Summary:
    """Win rate of A over B, plain and at equal length, with 95 % intervals over prompts.

    Prompts on which an order has no verdict are left out and counted.
    """
    judged = [x for x in battles if x.first is not None and x.second is not None]
    counts: Summary = {"prompts": len(battles), "judged": len(judged)}
    if not judged:
        return counts | dict.fromkeys(PAIR_FIELDS)
    first, second = (np.array([getattr(x, n) for x in judged]) for n in ("first", "second"))
    rate = metrics.win_rate(first, second, seed=seed)
    chars_a, chars_b = (np.array([getattr(x, n) for x in judged]) for n in ("chars_a", "chars_b"))
    values = {
        "win_rate": rate.rate._asdict(),
        "wins": rate.wins,
        "ties": rate.ties,
        "losses": rate.losses,
        "p_value": rate.p_value,
        "position_consistency": rate.position_consistency._asdict() if ordered else None,
        "length_controlled": _length_controlled(first, second, chars_a, chars_b, seed),
        "length_ratio": float(chars_a.sum() / chars_b.sum()) if chars_b.sum() else None,
    }
    return counts | values


PAIR_FIELDS = (
    "win_rate", "wins", "ties", "losses", "p_value", "position_consistency", "length_controlled",
    "length_ratio",
)  # fmt: skip


def _length_controlled(
    first: np.ndarray, second: np.ndarray, chars_a: np.ndarray, chars_b: np.ndarray, seed: int
) -> Summary | None:
    """None where it cannot be estimated: few prompts, or differences of length that are equal."""
    try:
        preferred = metrics.preference(first, second)
        controlled = metrics.length_controlled(preferred, chars_a, chars_b, seed=seed)
    except ValueError:
        return None
    return controlled.win_rate._asdict()


PRIOR = 0.1
"""Precision of the Gaussian prior on ratings where they would be infinite without one: of a model
that won, or lost, every comparison."""


def elo(names: Sequence[str], battles: Mapping[Pair, Sequence[Battle]]) -> Summary | None:
    """Elo of each model from all verdicts, the first model at 1000, with sandwich intervals.

    Returns:
      `ratings`, by name, and `prior`: 0, or `PRIOR` where it was needed; None without a verdict.
    """
    rows = [
        (names.index(a), names.index(b), (x.first + x.second) / 2, x.prompt_index)
        for (a, b), of_pair in battles.items()
        for x in of_pair
        if x.first is not None and x.second is not None
    ]
    if not rows:
        return None
    a, b, outcome, prompt = map(np.array, zip(*rows, strict=True))
    # no bootstrap: these are the sandwich's intervals
    options = {"models": len(names), "prompt": prompt, "anchor": 0, "samples": 0}
    try:
        prior, fit = 0.0, metrics.bradley_terry(a, b, outcome, **options)
    except ValueError:
        prior, fit = PRIOR, metrics.bradley_terry(a, b, outcome, prior=PRIOR, **options)
    columns = (fit.elo, fit.sandwich_low, fit.sandwich_high)
    rated = [
        dict(zip(("elo", "low", "high"), map(float, x), strict=True))
        for x in zip(*columns, strict=True)
    ]
    return {"prior": prior, "ratings": dict(zip(names, rated, strict=True))}
