"""Rewards of responses: functions, a reward model, a judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jalign.options.judge import JudgeConfig
from jalign.user_code import name_of


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """The reward of a response: a weighted sum of functions, a reward model and a judge.

    Args:
        functions: name -> weight of reward functions: those that ship (sentiment_reward,
          exact_match ...), `package.module:function` or `file.py:function`; from Python also the
          functions themselves, of which the run records the name. For methods that learn from
          steps they are called with each step as if it were a response; the column `before` is the
          response up to it.
        options: name -> keyword options of a function.
        model: a reward model: the folder of its run, one that `jalign export` wrote, or any
          sequence-classification model with one label, in a folder or on the hub. For methods that
          learn from steps: the folder of a run of prm.
        model_weight: its weight.
        missing_eos_penalty: subtracted from the reward of a response without EOS.
        clip: rewards are clipped to [-clip, clip]; 0: off.
        temperature: for methods that turn rewards into preferences: sigmoid(difference /
          temperature) is the probability that one response is preferred to the other.
        step_separator: text that ends a step of a response, for methods that learn from steps.
        judge: a language model that judges.
    """

    functions: dict[str, float] = field(default_factory=dict)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    model: str | None = None
    model_weight: float = 1.0
    missing_eos_penalty: float = 0.0
    clip: float = 0.0
    temperature: float = 1.0
    step_separator: str = "\n"
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    @property
    def scores(self) -> bool:
        """Whether responses get numeric rewards."""
        return bool(self.functions or self.model) or self.judge.ask in ("score", "points", "rubric")

    @property
    def given(self) -> bool:
        """Whether responses are judged at all."""
        return self.scores or self.judge.ask == "preference"

    def __post_init__(self):
        # names from here on: the run's config.json has to find the functions again
        if any(callable(fn) for fn in self.functions):
            named = {name_of(x) if callable(x) else x: w for x, w in self.functions.items()}
            object.__setattr__(self, "functions", named)
            options = {name_of(x) if callable(x) else x: o for x, o in self.options.items()}
            object.__setattr__(self, "options", options)
        for name in ("missing_eos_penalty", "clip"):
            if getattr(self, name) < 0:
                raise ValueError(f"reward.{name} must be >= 0, got {getattr(self, name)}")
        # split by an empty text, every character would be a step
        if not self.step_separator:
            raise ValueError("reward.step_separator must not be empty")
        if not self.temperature > 0:
            raise ValueError(f"reward.temperature must be > 0, got {self.temperature}")
        # a misspelled name would otherwise leave its function with the defaults
        if unknown := sorted(set(self.options) - set(self.functions)):
            raise ValueError(f"reward.options are for functions that are not used: {unknown}")
