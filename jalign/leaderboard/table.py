"""The rows of a leaderboard: what each method reached, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jalign.eval import metrics
from jalign.eval.metrics import Estimate
from jalign.eval.reward import calibration
from jalign.leaderboard.games import against, ratings, style_wins, win_at_equal_length
from jalign.leaderboard.results import MethodResult, Point, Start
from jalign.train.online_metrics import distinct

KL_MARKS = (0.5, 1.0, 5.0, 20.0)
"""Nats per response at which the true reward of the frontier is given; the area is up to the
last."""
SCALE = 0.1
"""Implicit reward = SCALE * log(p / p_start), DPO's beta: the ECE depends on it."""


class Row(NamedTuple):
    """One method.

    Attributes:
      rate, seeds: its learning rate, and the number of seeds.
      true: mean true reward.
      win: share of prompts on which it beats the start by true reward; ties count half.
      lc_win: the same at equal length; None where all lengths differ by the same.
      style_win: the same at equal style, fitted to all rows together (`style_wins`).
      elo: between all rows.
      p_value: of the difference to the start in true reward, Holm-corrected over the rows.
      at_kl: true reward of the frontier at KL_MARKS; area: its mean up to the last.
      at_seconds: true reward on the validation prompts after equal device-seconds.
      accuracy: share of held-out pairs ordered rightly by the implicit reward; ece: of its
        probabilities.
      kl: to the start, nats per response.
      length_ratio: tokens per response over the start's.
      distinct_2: different bigrams among all, over those of the start.
      self_bleu: of the answers to all prompts, in [0, 1]; 1 is no diversity.
      nll_change: of held-out texts against the start, nats per token.
      seconds: device-seconds of training; for online methods the proxy's come on top.
      tokens_per_second: read while training, prompts included.
      models: held while training; step_mib: memory of the training step by the compiler's account,
        in MiB of one device.
      worst_rate, best_rate: validation true reward at the worst and best rate of the grid.
    """

    name: str
    rate: float
    seeds: int
    true: Estimate
    win: Estimate
    lc_win: Estimate | None
    style_win: Estimate
    elo: Estimate
    p_value: float
    at_kl: tuple[float, ...]
    area: float
    at_seconds: float
    accuracy: Estimate
    ece: float
    kl: float
    length_ratio: float
    distinct_2: float
    self_bleu: float
    nll_change: float
    seconds: float
    tokens_per_second: float
    models: int
    step_mib: float | None
    worst_rate: float
    best_rate: float


def rows_of(
    methods: Mapping[str, MethodResult], start: Start, *, samples: int = 1000
) -> tuple[list[Row], float]:
    """(the rows, best true reward first; the device-seconds of `at_seconds`: those of the fastest
    method).

    Args:
      samples: of every bootstrap; ten times as many for p-values, which Holm multiplies.
    """
    if not methods:
        return [], 0.0
    names = list(methods)
    budget = min(m.seconds for m in methods.values())
    elo = ratings(methods, start, samples=samples)
    style = style_wins(methods, start, samples=max(2, samples // 10))
    against_start = [np.broadcast_to(start.true, m.true.shape) for m in methods.values()]
    p_values = [
        metrics.paired_bootstrap(m.true, other, samples=10 * samples).p_value
        for m, other in zip(methods.values(), against_start, strict=True)
    ]
    adjusted = metrics.holm(p_values).adjusted
    rows = [
        _row(methods[name], start, elo[name], style[name], float(p), budget, samples)
        for name, p in zip(names, adjusted, strict=True)
    ]
    return sorted(rows, key=lambda row: -row.true.value), budget


def _row(
    m: MethodResult,
    start: Start,
    elo: Estimate,
    style: Estimate,
    p_value: float,
    budget: float,
    samples: int,
) -> Row:
    preference = against(m.true, start.true)
    lengths = np.broadcast_to(start.lengths, m.lengths.shape)
    controlled = win_at_equal_length(preference, m.lengths, lengths)
    kl, true = curve_of(m.points)
    area_to = KL_MARKS[-1]
    begin = float(start.validation.mean())
    by_rate = _last_by_rate(m.points) or {m.rate: float(m.true.mean())}
    own = [distinct(answers, 2) for answers in m.ids]
    chosen_first = np.where(m.margins == 0, 0.5, m.margins > 0)
    return Row(
        name=m.name,
        rate=m.rate,
        seeds=len(m.seeds),
        true=metrics.bootstrap(m.true, samples=samples),
        win=metrics.bootstrap(preference, samples=samples),
        lc_win=controlled.win_rate if controlled else None,
        style_win=style,
        elo=elo,
        p_value=p_value,
        at_kl=tuple(map(float, metrics.gold_at_kl(kl, true, KL_MARKS, start=begin))),
        area=metrics.frontier_area(kl, true, start=begin, max_kl=area_to),
        at_seconds=at_seconds(m, begin, budget),
        accuracy=metrics.bootstrap(chosen_first, samples=samples),
        ece=calibration(SCALE * m.margins.ravel(), np.zeros(m.margins.size))[1],
        kl=float(m.kl.mean()),
        length_ratio=float(m.lengths.mean() / start.lengths.mean()),
        distinct_2=float(np.mean(own) / distinct(start.ids, 2)),
        self_bleu=float(np.mean([metrics.self_bleu(answers) for answers in m.ids])),
        nll_change=float((m.nll.mean(0) - start.nll).sum() / start.text_tokens.sum()),
        seconds=m.seconds,
        tokens_per_second=m.tokens / max(m.seconds, 1e-9),
        models=m.models,
        step_mib=None if m.step_bytes is None else m.step_bytes / 2**20,
        worst_rate=min(by_rate.values()),
        best_rate=max(by_rate.values()),
    )


def curve_of(points: Sequence[Point]) -> tuple[np.ndarray, np.ndarray]:
    """(KL, true reward) of each evaluation, means over prompts; an estimate below 0 is 0."""
    kl = np.array([p.kl.mean() for p in points])
    return np.maximum(kl, 0.0), np.array([p.true.mean() for p in points])


def at_seconds(m: MethodResult, start: float, budget: float) -> float:
    """Mean over seeds of the true reward at `budget` device-seconds, at the selected rate: linear
    between evaluations, from the start at 0 seconds.
    """
    values = []
    for seed in m.seeds:
        mine = [p for p in m.points if p.rate == m.rate and p.seed == seed]
        seconds = [0.0, *(p.seconds for p in mine)]
        values.append(np.interp(budget, seconds, [start, *(p.true.mean() for p in mine)]))
    return float(np.mean(values))


def _last_by_rate(points: Sequence[Point]) -> dict[float, float]:
    last = {p.rate: p for p in sorted(points, key=lambda p: p.step) if p.seed == 0}
    return {rate: float(p.true.mean()) for rate, p in last.items()}
