"""Early stopping, and which checkpoint is the best.

Both depend only on the held-out evaluations so far. These are saved with every checkpoint, so a run
that was killed ends at the same step as an uninterrupted one, and a run that has ended resumes if
the rule that ended it is relaxed.

The alarms are signs of reward hacking, each relative to the model before the first step. The
trained reward keeps rising with the KL divergence to the start while the true reward falls:
Gao, Schulman, Hilton 2022, https://arxiv.org/abs/2210.10760. Responses grow because rewards like
length: Singhal et al. 2023, https://arxiv.org/abs/2310.03716. They become alike: Kirk et al. 2023,
https://arxiv.org/abs/2310.06452.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jalign.core import did_you_mean
from jalign.train.divergence import diverged

Evaluation = Mapping[str, float]
"""The finite held-out metrics of a step by name, and the step itself as "step"."""

KL, LENGTH, DIVERSITY = "objective/kl", "completions/mean_length", "completions/distinct_2"
AUTO = ("reward", "rewards/accuracies", "loss")
READS = {
    "kl_budget": (KL,),
    "length_ratio": (LENGTH,),
    "min_diversity": (DIVERSITY,),
    "min_slope": ("reward", KL),
}
"""Rule -> metrics of the evaluation that it reads."""
AUTO_RULES = (("min_slope", 0.5), ("min_diversity", 0.9), ("patience", 3))
"""What `auto` sets: the first of these that the evaluations can answer. On over-optimized runs the
first kept about as much true reward as the best rule that needs no judge, a KL budget, which
depends on the length of responses (configs/real/README.md); the second needs no reference; runs on
fixed data answer no prompts.
"""
_HIGHER = (
    *("reward", "rewards/accuracies", "rewards/margins", "rewards/chosen"),
    *("logps/chosen", "logps/accuracies", "step_accuracy", DIVERSITY),
)
_LOWER = ("loss", "nll_loss", "kl", KL, "rewards/rejected", "logps/rejected")


@dataclass(frozen=True, kw_only=True)
class StopRules:
    """When the run ends before its last step, by its evaluations (eval_every); and which is best.

    Args:
        metric: of the evaluation, says which checkpoint is the best and kept (--step best): a name,
          or auto, the first of reward, rewards/accuracies and loss that there is; null keeps none.
        mode: whether a higher (max) or a lower (min) metric is better; auto knows it for rewards,
          accuracies, losses and KL.
        patience: end after so many evaluations in a row without a gain; the one before the first
          step is the first to beat; 0 is off.
        min_delta: a gain is an improvement on the best by more than this, in units of the metric.
        kl_budget: end above so many nats per response of objective/kl, the KL divergence to the
          reference in answers to held-out prompts; 0 is off.
        length_ratio: end when these answers are so many times as long, or as short, in the mean, as
          before the first step; above 1; 0 is off.
        divergence: end with exit code 4 when in two evaluations in a row, or in the last, the
          held-out loss has risen since the first step by more than so many times its size then,
          and by that much at least, while the margins of rewards are no better; or logps/chosen is
          that of a model that knows nothing. Without held-out data the end of training is compared
          with its first step. Needs no eval_every; 0 is off.
        min_diversity: end when completions/distinct_2 of these answers is below this share of
          what it was before the first step; below 1; 0 is off.
        min_slope: end when the reward gained per sqrt(objective/kl) in the last two evaluations is
          below this share of the steepest so far; below 1; 0 is off.
        auto: without another rule, the first of jalign.train.stopping.AUTO_RULES that the
          evaluation before the first step can answer; metric is auto unless it is set.
    """

    metric: str | None = None
    mode: Literal["auto", "max", "min"] = "auto"
    patience: int = 0
    min_delta: float = 0.0
    kl_budget: float = 0.0
    length_ratio: float = 0.0
    min_diversity: float = 0.0
    min_slope: float = 0.0
    divergence: float = 1.0
    auto: bool = False

    def __post_init__(self):
        if self.auto and self.metric is None:
            object.__setattr__(self, "metric", "auto")
        for name in ("patience", "min_delta", "kl_budget", "divergence"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"stop.{name} must be >= 0, got {getattr(self, name)}")
        if self.length_ratio and not 1 < self.length_ratio < math.inf:
            raise ValueError(f"stop.length_ratio must be 0 or above 1, got {self.length_ratio}")
        for name in ("min_diversity", "min_slope"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"stop.{name} must be in [0, 1), got {getattr(self, name)}")
        if self.metric is None:
            for name, default in (("mode", "auto"), ("patience", 0), ("min_delta", 0)):
                if getattr(self, name) != default:
                    raise ValueError(
                        f"stop.{name} needs stop.metric: a metric of the evaluation, or auto"
                    )
        elif self.metric == "auto" and self.mode != "auto":
            raise ValueError("stop.mode does not apply: stop.metric is auto, so it is known")
        elif self.metric != "auto" and self.mode == "auto" and _direction(self.metric) is None:
            raise ValueError(
                f"stop.metric is {self.metric!r}, and whether higher or lower is better is not "
                "known: set stop.mode to say so, or choose one of which it is known"
                + did_you_mean(self.metric, ("auto", *_HIGHER, *_LOWER))
            )

    @property
    def given(self) -> bool:
        """Whether any rule other than divergence is set; divergence needs no evaluations."""
        return self != StopRules(divergence=self.divergence)

    def resolved(self, first: Evaluation) -> StopRules:
        """The rules with that of `auto` set that the first evaluation can answer."""
        if not self.auto:
            return self
        given = any(getattr(self, name) for name in (*READS, "patience"))
        answered = [(n, x) for n, x in AUTO_RULES if all(m in first for m in READS.get(n, ()))]
        more = {} if given else dict(answered[:1])
        return replace(self, auto=False, **more)

    def check(self, first: Evaluation) -> None:
        """Check that the evaluation before the first step has the metrics that the rules read.

        Raises:
          ValueError: naming the rule and the available metrics.
        """
        rules = self.resolved(first)
        reads = [(rule, name) for rule in READS for name in READS[rule] if getattr(rules, rule)]
        if self.metric is not None:
            reads.append(("metric", self.metric_of(first)))
        there = [name for name in first if name != "step"]
        for rule, name in reads:
            if name not in there:
                raise ValueError(
                    f"stop.{rule} reads {name}, which the evaluation before the first step does "
                    f"not have{did_you_mean(name, there)}; it has: {', '.join(sorted(there))}"
                )
            if name in (LENGTH, DIVERSITY) and rule != "metric" and not first[name] > 0:
                raise ValueError(
                    f"stop.{rule} compares with {name} before the first step, which is "
                    f"{first[name]:.4g}"
                )

    def metric_of(self, first: Evaluation) -> str:
        """The name of the metric, with auto resolved."""
        if self.metric != "auto" and self.metric is not None:
            return self.metric
        return next((name for name in AUTO if name in first), AUTO[0])

    def best(self, evaluations: Sequence[Evaluation]) -> Evaluation | None:
        """The newest evaluation that improved on all before it; those without the metric are
        ignored."""
        if self.metric is None or not evaluations:
            return None
        name = self.metric_of(evaluations[0])
        direction = _direction(name) if self.mode == "auto" else self.mode
        sign = -1 if direction == "min" else 1
        best = None
        for one in evaluations:
            if name in one and (best is None or sign * (one[name] - best[name]) > self.min_delta):
                best = one
        return best

    def reason(self, evaluations: Sequence[Evaluation], by_chance: float = -math.inf) -> str | None:
        """Why the run ends after the last of these evaluations; None if it continues."""
        if not evaluations:
            return None
        first, last = evaluations[0], evaluations[-1]
        if self.auto:
            return self.resolved(first).reason(evaluations, by_chance)
        why = (self.diverged(evaluations, by_chance, in_a_row=2), self._patience(evaluations))
        why += (self._kl(last), self._length(first, last), self._diversity(first, last))
        why += (self._slope(evaluations),)
        return "; ".join(filter(None, why)) or None

    def diverged(
        self, evaluations: Sequence[Evaluation], by_chance: float = -math.inf, *, in_a_row: int = 1
    ) -> str | None:
        """Why training has diverged, if each of the last evaluations shows it.

        Args:
          evaluations: oldest first.
          by_chance: logps/chosen under a uniform distribution.
          in_a_row: how many evaluations must agree.
        """
        if len(evaluations) <= in_a_row:
            return None
        first, last = evaluations[0], evaluations[-in_a_row:]
        signs = [diverged(first, one, self.divergence, by_chance) for one in last]
        if None in signs:
            return None
        return (
            f"training diverged: {signs[-1]} (held-out; stop.divergence is {self.divergence:.4g})"
        )

    def _patience(self, evaluations: Sequence[Evaluation]) -> str | None:
        best = self.best(evaluations)
        if not self.patience or best is None:
            return None
        since = sum(one["step"] > best["step"] for one in evaluations)
        if since < self.patience:
            return None
        name = self.metric_of(evaluations[0])
        gain = f" by more than {self.min_delta:.4g}" if self.min_delta else ""
        when = f"of step {best['step']}" if best["step"] else "before the first step"
        return (
            f"{name} has not improved on {best[name]:.4g} {when}{gain} in {since} evaluations "
            f"(stop.patience is {self.patience})"
        )

    def _kl(self, last: Evaluation) -> str | None:
        kl = last.get(KL, math.nan)
        if not self.kl_budget or kl <= self.kl_budget:  # a KL that is not finite exceeds it
            return None
        return (
            f"{KL} is {kl:.4g} nats per response (stop.kl_budget is {self.kl_budget:.4g}): the "
            "policy has left its reference"
        )

    def _length(self, first: Evaluation, last: Evaluation) -> str | None:
        if not self.length_ratio:
            return None
        ratio = last.get(LENGTH, math.nan) / first[LENGTH]
        if 1 / self.length_ratio <= ratio <= self.length_ratio:
            return None
        return (
            f"{LENGTH} is {last.get(LENGTH, math.nan):.4g} tokens, {ratio:.3g} times the "
            f"{first[LENGTH]:.4g} before the first step (stop.length_ratio is "
            f"{self.length_ratio:.4g})"
        )

    def _diversity(self, first: Evaluation, last: Evaluation) -> str | None:
        if not self.min_diversity:
            return None
        share = last.get(DIVERSITY, math.nan) / first.get(DIVERSITY, math.nan)
        if share >= self.min_diversity:
            return None
        return (
            f"{DIVERSITY} is {last.get(DIVERSITY, math.nan):.4g}, {share:.3g} of the "
            f"{first[DIVERSITY]:.4g} before the first step (stop.min_diversity is "
            f"{self.min_diversity:.4g}): answers have become alike"
        )

    def _slope(self, evaluations: Sequence[Evaluation]) -> str | None:
        """By the law of over-optimization reward falls behind sqrt(KL) before it falls at all."""
        if not self.min_slope or len(evaluations) <= _WINDOW:
            return None
        slopes = [slope(*pair) for pair in zip(evaluations, evaluations[_WINDOW:], strict=False)]
        steepest = max((x for x in slopes if math.isfinite(x)), default=0.0)
        if steepest <= 0 or not slopes[-1] < self.min_slope * steepest:
            return None
        return (
            f"the last {_WINDOW} evaluations gained {slopes[-1]:.3g} reward per sqrt(nat) of "
            f"{KL}, {slopes[-1] / steepest:.2g} of the {steepest:.3g} before (stop.min_slope is "
            f"{self.min_slope:.4g})"
        )


_WINDOW = 2
"""Evaluations of which a slope is taken: of one alone it is noise."""


def slope(before: Evaluation, after: Evaluation) -> float:
    """Reward gained per sqrt(nat): (R - R0) / (sqrt(KL) - sqrt(KL0)); inf where the KL has not
    grown, so that nothing was paid; NaN where a value is missing.
    """
    gain = after.get("reward", math.nan) - before.get("reward", math.nan)
    squares = (max(one.get(KL, math.nan), 0.0) for one in (before, after))
    first, last = map(math.sqrt, squares)
    return math.inf if last <= first else gain / (last - first)


def _direction(metric: str) -> Literal["max", "min"] | None:
    """Whether a higher or lower metric is better; None if unknown."""
    if metric in _LOWER:
        return "min"
    of_one_reward = metric.startswith("rewards/") and metric.endswith("/mean")
    return "max" if metric in _HIGHER or of_one_reward else None
