"""Hooks run after each step: logging with a NaN guard, evaluation, sampling, checkpointing.

Each hook is a callable of a `StepInfo` (`jalign.train.loop`); one that returns True ends the run.
"""

from jalign.train.hooks.answers import Answers
from jalign.train.hooks.evaluate import Evaluate
from jalign.train.hooks.evaluations import Evaluations
from jalign.train.hooks.generations import Generations
from jalign.train.hooks.metrics import Metrics
from jalign.train.hooks.periodic import PeriodicHook, is_due
from jalign.train.hooks.profile import Profile, memory_profile_on_failure
from jalign.train.hooks.save import Save

__all__ = [
    "Answers",
    "Evaluate",
    "Evaluations",
    "Generations",
    "Metrics",
    "PeriodicHook",
    "Profile",
    "Save",
    "is_due",
    "memory_profile_on_failure",
]
