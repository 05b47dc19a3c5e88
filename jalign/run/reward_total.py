"""Add up reward functions and a reward model; collect their metrics and failures."""

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
    """Call reward functions on process 0 and broadcast the results: a server is queried once, and a
    random function returns the same values to every process.

    Args:
      results: name -> values already computed by judges that run on all devices.
    """
    # nothing travels, so nothing is turned into JSON and back
    if jax.process_count() == 1:
        return functions(prompts, responses, columns, results)
    call = lambda: functions(prompts, responses, columns, results).record()  # noqa: E731
    return Scored.of_record(hosts.call_on_main(call))


def total_of(
    c: RewardConfig, n: int, scored: Scored | None, by_model: np.ndarray | None
) -> tuple[np.ndarray, dict[str, float]]:
    """[n] weighted sum of reward functions and a reward model, clipped to `clip`, and metrics.

    0 if there is neither; NaN where a reward failed or none applies.

    Args:
      by_model: [n] rewards of a model, not finite where it gives none.
    """
    total, metrics = np.zeros(n), {}
    if scored is not None:
        # where no function applies the model alone decides
        without = 0.0 if by_model is not None else np.nan
        total, metrics = np.where(scored.applies, scored.total, without), scored.metrics()
    if by_model is not None:
        finite = by_model[np.isfinite(by_model)]
        # NaN, not the model's -inf: `clip` would turn it into a reward
        total = total + c.model_weight * np.where(np.isfinite(by_model), by_model, np.nan)
        metrics["rewards/model/mean"] = float(finite.mean()) if finite.size else math.nan
        metrics["rewards/model/failed"] = float(by_model.size - finite.size)
    # beyond float32 a score would be infinite in the loss and spoil its group
    total = np.where(np.abs(total) <= LARGEST, total, np.nan)
    return np.clip(total, -c.clip, c.clip) if c.clip else total, metrics


def failures_of(n: int, scored: Scored | None, by_model: np.ndarray | None) -> dict[str, str]:
    """Name of a failed reward -> reason, count out of n texts, and traceback; a short form is
    logged as a warning.
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
    """Log a failed reward as a warning on process 0; return the message."""
    message = f"reward {name} failed for {'all' if count == n else f'{count} of'} {n} {what}: {why}"
    if hosts.is_main():
        LOG.warning("%s", message)
    return message
