"""Detect divergence although every value is finite.

One sign is a loss far above its value before the first step. Overfitting raises the loss of
held-out
preferences too, but keeps the margins: a run whose margins exceed those of the start has not
diverged. Bounded losses (KTO's, a sigmoid) cannot rise far, so another sign is a model to which
preferred responses are no more likely than chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from jalign.data.examples import Examples

Metrics = Mapping[str, float]

MARGIN, CHOSEN = "rewards/margins", "logps/chosen"
_STEPS = 10  # averaged for the end of a run


def chance(examples: Examples, vocab: int) -> float:
    """The mean log-prob (nats) of preferred responses under a uniform distribution over tokens: of
    the first response of each example, or of those with label 1 if there are labels.
    """
    lengths = examples.lengths.scored_lens[:, 0].astype(float)
    label = examples.extras.get("label")
    if label is not None and (np.asarray(label) > 0.5).any():
        lengths = lengths[np.asarray(label) > 0.5]
    return -float(lengths.mean()) * math.log(vocab)


def diverged(
    first: Metrics, last: Metrics, limit: float, by_chance: float = -math.inf
) -> str | None:
    """Why these metrics, held-out or of training, count as diverged; None if they do not.

    Args:
      first: before the first step; last: now. Values that are not finite are left out.
      limit: the rise of the loss that counts, in units of its first magnitude or of 1, whichever is
        larger; 0: never.
      by_chance: from `chance`.
    """
    if not limit or "loss" not in first:
        return None
    if "loss" not in last:
        return "the loss is not finite"
    was, now = first.get(CHOSEN, 0.0), last.get(CHOSEN, 0.0)
    if now < 0.9 * by_chance and now < 1.5 * was:  # a randomly initialized model starts there
        return (
            f"{CHOSEN} is {now:.4g}, and was {was:.4g} before the first step; a model that knows "
            f"nothing has {by_chance:.4g}"
        )
    if last.get(MARGIN, -math.inf) > first.get(MARGIN, 0.0):
        return None
    was, now = first["loss"], last["loss"]
    # At least 1, or a loss that starts near 0 would diverge by a tiny rise.
    if now - was > limit * max(abs(was), 1.0):
        return f"the loss is {now:.4g}, and was {was:.4g} before the first step"
    return None


def worse(evaluations: Sequence[Metrics]) -> list[str]:
    """Warnings about held-out metrics that got worse during a run."""
    if len(evaluations) < 2:
        return []
    first, last = evaluations[0], evaluations[-1]
    lines = []
    for name, sign in (("loss", 1), ("reward", -1)):
        if name in first and name in last:
            rise = sign * (last[name] - first[name])
            if rise > 0.01 * abs(first[name]):
                lines.append(
                    f"the held-out {name} is worse than before training: {first[name]:.4g} "
                    f"before, {last[name]:.4g} after"
                )
    was, now = first.get(CHOSEN, 0.0), last.get(CHOSEN, 0.0)
    if was < 0 and now < 1.5 * was:
        lines.append(
            f"preferred responses have become unlikely: {CHOSEN} was {was:.4g} nats and is "
            f"{now:.4g}; a lower learning rate, a higher beta or nll_coef hold them"
        )
    return lines


@dataclass
class Trend:
    """The metrics of the first step and of the last ones, for runs without held-out data.

    Attributes:
      first: of the first step; None if they were not stored.
      recent: of the last steps, without the first.
    """

    first: dict[str, float] | None = None
    recent: list[dict[str, float]] = field(default_factory=list)

    def add(self, step: int, rows: Iterable[Metrics]) -> None:
        """The metrics of the steps up to this one."""
        rows = [{n: row[n] for n in ("loss", MARGIN, CHOSEN) if n in row} for row in rows]
        # Only then do the rows begin at step 1; a resumed run gets it from its checkpoint.
        if len(rows) == step:
            self.first, *rows = rows
        self.recent = [*self.recent, *rows][-_STEPS:]

    def diverged(self, limit: float, by_chance: float) -> str | None:
        """As `diverged`, of the means of the last steps."""
        if self.first is None or not self.recent:
            return None
        means = {name: _mean([row[name] for row in self.recent]) for name in self.first}
        first, last = (
            {n: x for n, x in metrics.items() if math.isfinite(x)}
            for metrics in (self.first, means)
        )
        return diverged(first, last, limit, by_chance)

    def facts(self) -> dict:
        """For a checkpoint."""
        return {"first": self.first, "recent": self.recent}


def _mean(values: list[float]) -> float:
    """The mean of finite values, so that skipped steps do not count; NaN if there are none."""
    known = [x for x in values if math.isfinite(x)]
    return sum(known) / len(known) if known else math.nan
