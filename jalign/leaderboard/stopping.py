"""When to stop: rules compared on over-optimized runs, by what they keep of the best true reward.

A run on a learned reward is evaluated at every mark. A rule reads the evaluations so far (never the
true reward) and ends the run. Kept is the true reward that runs gained until then, all together, as
a share of what they gained at their best: a share of each run would be ruled by those that hardly
gained. Every rule has a threshold, which is selected on the runs of the other methods, so that no
rule is judged by the runs that it was tuned on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jalign.eval.metrics import sign_test
from jalign.leaderboard.cells import read_results
from jalign.leaderboard.run import START
from jalign.train.stopping import DIVERSITY, KL, LENGTH, Evaluation, StopRules

Rule = Callable[[Sequence[Evaluation]], bool]
"""Whether a run ends after the last of these evaluations."""

WINS, LOSSES = "judge/wins", "judge/losses"
AGREEMENT = 0.8
"""Share of verdicts in which the simulated judge agrees with the true reward: people among
themselves agree on about as many (arXiv 2305.14387)."""


class Record(NamedTuple):
    """A run.

    Attributes:
      method: tells which runs a threshold may be selected on.
      evaluations: the first before the first step.
      true: true reward at each of them.
    """

    method: str
    evaluations: Sequence[Evaluation]
    true: Sequence[float]


class Outcome(NamedTuple):
    """A family of rules.

    Attributes:
      kept: of the best gain, over all runs, thresholds selected on other methods; 1 is the best
        that any rule can do.
      lost: the most true reward that a run lost against its best.
      steps: mean share of the steps that were taken.
      threshold: the best on all runs.
    """

    family: str
    kept: float
    lost: float
    steps: float
    threshold: float


def stopped_at(rule: Rule, evaluations: Sequence[Evaluation]) -> int:
    """Index of the evaluation after which the run ends; the last if the rule never ends it."""
    ends = (i for i in range(1, len(evaluations)) if rule(evaluations[: i + 1]))
    return next(ends, len(evaluations) - 1)


def gain(record: Record, rule: Rule) -> float:
    """True reward where the rule ends the run, above that of the start."""
    return record.true[stopped_at(rule, record.evaluations)] - record.true[0]


def best_gain(record: Record) -> float:
    """The most true reward above the start's at any evaluation; 0 if there was none."""
    return max(record.true) - record.true[0]


def sequential(evaluations: Sequence[Evaluation], alpha: float) -> bool:
    """Whether a judge finds the answers worse than those of the evaluation before: a one-sided sign
    test of its wins and losses, added up over the evaluations since the last in which it found
    gains, at level alpha.
    """
    wins = losses = 0.0
    for one in evaluations[1:]:
        wins, losses = wins + one[WINS], losses + one[LOSSES]
        if wins > losses:
            wins = losses = 0.0
    # the test is two-sided, and one side is asked about
    return losses > wins and sign_test(round(wins), round(losses)) / 2 < alpha


def rules(**values: float) -> Rule:
    """Stop rules of a run as a rule."""
    stop = StopRules(**values)  # type: ignore[arg-type]
    return lambda evaluations: stop.reason(evaluations) is not None


FAMILIES: Mapping[str, tuple[Callable[[float], Rule], tuple[float, ...]]] = {
    "never": (lambda _: lambda evaluations: False, (0.0,)),
    "patience on the held-out proxy": (
        lambda x: rules(metric="reward", patience=int(x)),  # type: ignore[arg-type]
        (1, 2, 3),
    ),
    "KL budget": (lambda x: rules(kl_budget=x), (2.0, 5.0, 10.0, 20.0, 40.0)),
    "length ratio": (lambda x: rules(length_ratio=x), (1.05, 1.1, 1.2, 1.5)),
    "loss of diversity": (lambda x: rules(min_diversity=x), (0.95, 0.9, 0.8, 0.7, 0.5)),
    "slope of the frontier": (lambda x: rules(min_slope=x), (0.1, 0.25, 0.5, 0.75)),
    "sequential test of a judge": (
        lambda x: lambda evaluations: sequential(evaluations, x),
        (0.05, 0.2, 0.4),
    ),
}
"""Family -> (threshold -> rule, thresholds)."""


def compare(records: Sequence[Record]) -> list[Outcome]:
    """The families, the one that keeps most first.

    Raises:
      ValueError: fewer than two methods, or no run that gained.
    """
    if len({r.method for r in records}) < 2:
        raise ValueError("thresholds are selected on other methods: at least two are needed")
    if not any(map(best_gain, records)):
        raise ValueError(
            "no run ever had more true reward than its start: there is nothing to keep"
        )
    outcomes = [_outcome(name, *FAMILIES[name], records) for name in FAMILIES]
    return sorted(outcomes, key=lambda outcome: -outcome.kept)


def _outcome(
    name: str,
    make: Callable[[float], Rule],
    thresholds: Sequence[float],
    records: Sequence[Record],
) -> Outcome:
    table = np.array([[gain(r, make(x)) for x in thresholds] for r in records])
    best = np.array([best_gain(r) for r in records])
    gains, steps = [], []
    for record in records:
        others = [j for j, other in enumerate(records) if other.method != record.method]
        rule = make(thresholds[int(table[others].sum(0).argmax())])
        gains.append(gain(record, rule))
        steps.append(stopped_at(rule, record.evaluations) / (len(record.evaluations) - 1))
    overall = thresholds[int(table.sum(0).argmax())]
    kept = float(np.sum(gains) / best.sum())
    return Outcome(name, kept, float(np.max(best - gains)), float(np.mean(steps)), overall)


def read_records(out: Path) -> list[Record]:
    """The finished cells of a leaderboard's folder as records, with a simulated judge."""
    start = json.loads((out / START / "start.json").read_text(encoding="utf-8"))
    records = []
    for cell, result in read_results(out).items():
        points = [p for p in result["curve"] if "each_true" in p]
        first = {"step": 0, "true": start["true"], "proxy": start["proxy"], "kl": 0.0}
        first |= {n: start[n] for n in ("length", "distinct_2", "each_true")}
        rng = np.random.default_rng(cell.seed)
        evaluations, before = [], None
        for point in (first, *points):
            evaluation = {
                "step": point["step"], "reward": point["proxy"], KL: point["kl"],
                LENGTH: point["length"], DIVERSITY: point["distinct_2"],
            }  # fmt: skip
            now = np.array(point["each_true"])
            if before is not None:
                agrees = rng.random(len(now)) < AGREEMENT
                better = np.where(agrees, now > before, now < before)
                worse = np.where(agrees, now < before, now > before)
                evaluation |= {WINS: float(better.sum()), LOSSES: float(worse.sum())}
            evaluations.append(evaluation)
            before = now
        true = [p["true"] for p in (first, *points)]
        records.append(Record(cell.method, evaluations, true))
    return records
