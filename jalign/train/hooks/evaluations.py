"""The held-out evaluations of a run: their history, the best one, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jalign.log import Logger
from jalign.parallel import hosts
from jalign.train.loop import StepInfo
from jalign.train.stopping import Evaluation, StopRules


class Evaluations:
    """The held-out evaluations of a run so far, oldest first.

    As a hook it ends the run when a stop rule applies. Hooks that evaluate must come before it,
    hooks that act on the last step after it.

    Args:
      log: of the run.
      rules: when to stop, and which evaluation is the best.
      earlier: evaluations stored in the checkpoint from which the run resumes.
      by_chance: logps/chosen of a uniform distribution over the vocabulary, nats.
    """

    def __init__(
        self,
        log: Logger,
        rules: StopRules = StopRules(),
        earlier: Sequence[Evaluation] = (),
        *,
        by_chance: float = -math.inf,
    ):
        self.log, self.rules, self.by_chance = log, rules, by_chance
        self.so_far: list[Evaluation] = [dict(evaluation) for evaluation in earlier]
        if self.so_far:
            rules.check(self.so_far[0])

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record an evaluation.

        Raises:
          ValueError: it is the first and lacks a metric that a stop rule reads.
        """
        self.log.write(step, metrics, "eval")
        # NaN is not JSON, and would compare false with everything in the rules.
        finite = {name: float(x) for name, x in metrics.items() if np.isfinite(x)}
        self.so_far.append({"step": step} | finite)
        if len(self.so_far) == 1:
            self.rules.check(self.so_far[0])

    def has(self, step: int) -> bool:
        """Whether the newest evaluation is of this step."""
        return bool(self.so_far) and self.so_far[-1]["step"] == step

    @property
    def best(self) -> Evaluation | None:
        """The best so far, step 0 included; None if the rules name no metric."""
        return self.rules.best(self.so_far)

    def is_best(self, step: int) -> bool:
        """Whether this step has just been evaluated and is the best. Collective: every process must
        call it.
        """
        if self.rules.metric is None or not self.has(step):
            return False
        # Compiled programs of different hosts may differ in the last bit and so disagree on a tie.
        return hosts.any_process(self.best is self.so_far[-1])

    @property
    def reason(self) -> str | None:
        """Why the run stops early, for people; None while it continues."""
        return self.rules.reason(self.so_far, self.by_chance)

    @property
    def divergence(self) -> str | None:
        """Why the last evaluation counts as diverged; None if it does not."""
        return self.rules.diverged(self.so_far, self.by_chance)

    def over(self) -> bool:
        """Whether any process has a reason to stop. Collective: every process must call it."""
        return hosts.any_process(self.reason is not None)

    def __call__(self, info: StepInfo) -> bool:
        if not self.has(info.step):
            return False
        if self.reason:
            self.log.text(info.step, "stop", [{"reason": self.reason}])
        return self.over()
