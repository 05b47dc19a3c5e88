"""How reward functions and a reward model add up, what is logged of them, and how they fail."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jalign.options import RewardConfig
from jalign.parallel import hosts
from jalign.rewards.functions import LARGEST, RewardFunctions, Scored

LOG = logging.getLogger(__name__)


def call_functions(
    functions: RewardFunctions,
    prompts: Sequence[str],
    responses: Sequence[str],
    columns: Mapping[str, Sequence[object]],
    results: Mapping[str, Sequence[object]] | None = None,
) -> Scored:
    """What reward functions return, called on one process for all: a server is asked once, and a
    function that draws random numbers gives every process the same.

    Args:
      results: name -> what a function returned already: programs over all devices, which every
        process has to run.
    """
    # nothing travels, so nothing is turned into JSON and back
    if jax.process_count() == 1:
        return functions(prompts, responses, columns, results)
    call = lambda: functions(prompts, responses, columns, results).record()  # noqa: E731
    return Scored.of_record(hosts.call_on_main(call))


def total_of(
    c: RewardConfig, n: int, scored: Scored | None, by_model: np.ndarray | None
) -> tuple[np.ndarray, dict[str, float]]:
    """[n] the weighted sum of reward functions and a reward model, within `clip`, and its metrics;
    0 where neither is asked, NaN where one that counts failed or none applies.

    Args:
      by_model: [n] rewards of a model, not finite where it has none.
    """
    total, metrics = np.zeros(n), {}
    if scored is not None:
        # where no function applies the model alone decides
        without = 0.0 if by_model is not None else np.nan
        total, metrics = np.where(scored.applies, scored.total, without), scored.metrics()
    if by_model is not None:
        finite = by_model[np.isfinite(by_model)]
        # NaN, not the model's -inf: `clip` would make a reward of it
        total = total + c.model_weight * np.where(np.isfinite(by_model), by_model, np.nan)
        metrics["rewards/model/mean"] = float(finite.mean()) if finite.size else math.nan
        metrics["rewards/model/failed"] = float(by_model.size - finite.size)
    # beyond float32 a score would be infinite in the loss and spoil its group
    total = np.where(np.abs(total) <= LARGEST, total, np.nan)
    return np.clip(total, -c.clip, c.clip) if c.clip else total, metrics


def failures_of(n: int, scored: Scored | None, by_model: np.ndarray | None) -> dict[str, str]:
    """name -> why it failed, for how many of n texts, and where it raised; a short form is logged
    as a warning.
    """
    failures = {}
    if scored:
        for name, why in scored.errors.items():
            message = report_failure(name, scored.failed[name], n, "responses", why)
            lines = [message, *filter(None, [scored.tracebacks.get(name)])]
            failures[name] = "\n".join(lines)
    if by_model is not None and (failed := int((~np.isfinite(by_model)).sum())):
        why = "it gave no finite number"
        failures["model"] = report_failure("model", failed, n, "responses", why)
    return failures


def report_failure(name: str, count: int, n: int, what: str, why: str) -> str:
    """Log that a reward failed as a warning of process 0, and return the message."""
    message = f"reward {name} failed for {'all' if count == n else f'{count} of'} {n} {what}: {why}"
    if hosts.is_main():
        LOG.warning("%s", message)
    return message
