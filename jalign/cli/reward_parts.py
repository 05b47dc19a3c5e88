"""What rewards of responses and of steps share: the texts, and how parts become a total."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jalign.config import RewardConfig
from jalign.data.examples import Examples
from jalign.parallel import hosts
from jalign.rewards.functions import RewardFunctions, Scored
from jalign.rollout.groups import Responses
from jalign.rollout.sampler import continuation
from jalign.train.rollout import Judged

LOG = logging.getLogger(__name__)


class Texts:
    """Prompts as texts and the columns of their rows, for rewards.

    Args:
      examples: prompts; their extra `row` says which row each came from.
      rows: of the data set.
    """

    def __init__(self, examples: Examples, rows: Sequence[Any], tokenizer: Any):
        self.examples, self.rows, self.tokenizer = examples, rows, tokenizer

    def prompt(self, i: int) -> str:
        return self.tokenizer.decode(self.examples[i].prompt, skip_special_tokens=True)

    def response(self, i: int, tokens: np.ndarray) -> str:
        return continuation(self.tokenizer, self.examples[i].prompt.tolist(), tokens.tolist())

    def columns(self, numbers: Sequence[int]) -> dict[str, list[Any]]:
        """Every column of the data but the prompt, one entry per number."""
        rows = [self.rows[int(self.examples.extras["row"][i])] for i in numbers]
        return {name: [row.get(name) for row in rows] for name in rows[0]} if rows else {}


Reward = Callable[[Texts, Sequence[int], Responses], Judged]
"""(texts, numbers of prompts, their responses) -> what is said of them."""


def asked(
    functions: RewardFunctions,
    prompts: Sequence[str],
    answers: Sequence[str],
    columns: dict[str, list[Any]],
    said: dict[str, Any] | None = None,
) -> Scored:
    """What functions say, asked on one process for all. Those in `said` have been asked already:
    programs over all devices, which all processes run.
    """
    ask = lambda: functions(prompts, answers, columns, said).record()  # noqa: E731
    return Scored.of_record(hosts.said_by_main(ask))


def total_of(
    c: RewardConfig, n: int, scored: Scored | None, found: np.ndarray | None
) -> tuple[np.ndarray, dict[str, float]]:
    """The weighted sum of what functions and a reward model say of n texts, within `clip`, and what
    is logged of it; 0 where neither was asked.
    """
    total, metrics = np.zeros(n), {}
    if scored is not None:
        total, metrics = total + scored.total, scored.metrics()
        for name, why in scored.errors.items():
            LOG.warning("reward %s failed for some responses: %s", name, why)
    if found is not None:
        known = found[np.isfinite(found)]
        total = total + c.model_weight * found
        metrics["rewards/model/mean"] = float(known.mean()) if known.size else math.nan
        metrics["rewards/model/failed"] = float(found.size - known.size)
    return np.clip(total, -c.clip, c.clip) if c.clip else total, metrics
