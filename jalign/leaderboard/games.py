"""Answers compared prompt by prompt by the true reward: wins, at equal length or style, Elo."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jalign.eval import metrics
from jalign.eval.metrics import Estimate
from jalign.leaderboard.results import MethodResult, Start


def against(true: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where the first reward is larger, 1/2 for a tie, 0 where it is smaller: the verdict of the
    true reward, which has no order of answers.
    """
    return (1 + np.sign(true - other)) / 2


def win_at_equal_length(
    preference: np.ndarray, lengths: np.ndarray, other: np.ndarray
) -> metrics.LengthControlled | None:
    """Length-controlled win rate over seeds and prompts; None if all differences of length are
    equal, which says nothing of their effect.
    """
    if np.ptp(lengths - other) == 0:
        return None
    return metrics.length_controlled(*(x.ravel() for x in (preference, lengths, other)))


def style_wins(
    methods: Mapping[str, MethodResult], start: Start, *, samples: int = 100
) -> dict[str, Estimate]:
    """Win rates against the start at equal style: length, headers, lists and bold (Arena-Hard),
    with one effect of each on all methods; the games of a prompt are resampled together.
    """
    texts = [text for m in methods.values() for answers in m.texts for text in answers]
    lengths = np.concatenate([m.lengths.ravel() for m in methods.values()])
    repeats = len(lengths) // len(start.lengths)
    baseline = metrics.style_counts(start.texts, np.maximum(start.lengths, 1))
    games = [m.true.size for m in methods.values()]
    fit = metrics.style_controlled(
        np.repeat(np.arange(len(games)), games),
        np.concatenate([against(m.true, start.true).ravel() for m in methods.values()]),
        metrics.style_features(
            metrics.style_counts(texts, lengths), np.tile(baseline, (repeats, 1))
        ),
        prompt=np.tile(np.arange(len(start.lengths)), repeats), prior=0.01, samples=samples,
        confidence=0.95,
    )  # fmt: skip
    ends = zip(fit.win_rate, fit.low, fit.high, strict=True)
    return {name: Estimate(*map(float, x)) for name, x in zip(methods, ends, strict=True)}


def ratings(
    methods: Mapping[str, MethodResult], start: Start, *, samples: int = 1000
) -> dict[str, Estimate]:
    """Elo of every method and of the start (1000), by the true rewards of all pairs of models on
    each test prompt and common seed; the games of a prompt are resampled together.
    """
    first, second, outcome, prompt = [], [], [], []
    models = ["start", *methods]

    def play(i: int, j: int, wins: np.ndarray) -> None:
        first.append(np.full(wins.size, i))
        second.append(np.full(wins.size, j))
        outcome.append(wins.ravel())
        prompt.append(np.tile(np.arange(wins.shape[-1]), len(wins)))

    results = list(methods.values())
    for j, b in enumerate(results, 1):
        play(j, 0, against(b.true, start.true))
        for i, a in enumerate(results[: j - 1], 1):
            x, y = common(a, b, "true")
            if len(x):
                play(i, j, against(x, y))
    fit = metrics.bradley_terry(
        *map(np.concatenate, (first, second, outcome)), models=len(models),
        prompt=np.concatenate(prompt), anchor=0, prior=0.01, samples=samples,
    )  # fmt: skip
    ends = zip(fit.elo, fit.bootstrap_low, fit.bootstrap_high, strict=True)
    return {name: Estimate(*map(float, x)) for name, x in zip(models, ends, strict=True)}


def common(a: MethodResult, b: MethodResult, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of an array of the seeds that both have."""
    seeds = [seed for seed in a.seeds if seed in b.seeds]
    pick = lambda m: getattr(m, name)[[m.seeds.index(s) for s in seeds]]  # noqa: E731
    return pick(a), pick(b)
