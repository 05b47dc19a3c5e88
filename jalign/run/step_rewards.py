"""Step-level rewards: functions, a process reward model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from jalign.options import RewardConfig
from jalign.rewards.functions import RewardFunctions, Scored
from jalign.rewards.model import RewardModel
from jalign.rewards.process import step_probabilities
from jalign.rewards.types import Judged
from jalign.rollout.steps import step_ends
from jalign.rollout.types import Rollout
from jalign.run.prompts import PromptTable
from jalign.run.reward_total import call_functions, failures_of, total_of


class ReasoningStep(NamedTuple):
    """A reasoning step of a response.

    Attributes:
      before: text of the response before the step.
      text: text of the step, stripped.
      tokens: number of tokens of the step.
    """

    before: str
    text: str
    tokens: int


@dataclass(frozen=True)
class StepReward:
    """`reward(table, indices, rollout) -> Judged`: reward functions applied to each step as if it
    were a response, plus the step probability of a process reward model. The reward of a response
    is the mean over its steps. `identity` is that of `run.rewards.RewardFn`.
    """

    options: RewardConfig
    functions: RewardFunctions | None
    model: RewardModel | None
    identity: dict[str, Any]

    def __call__(self, table: PromptTable, indices: Sequence[int], rollout: Rollout) -> Judged:
        b, k = rollout.finished.shape
        of_response, responses = [i for i in indices for _ in range(k)], rollout.responses()
        # on ids, not on text: a reward of a step belongs to its last token
        separator = self.options.step_separator
        ends = [step_ends(table.tokenizer, ids, separator) for ids in responses]
        each = zip(of_response, responses, ends, strict=True)
        steps = [steps_of(table, i, ids, positions) for i, ids, positions in each]
        count = sum(map(len, steps))
        scored = self._by_functions(table, of_response, steps) if self.functions else None
        by_model = None
        if self.model:
            messages = [table[i].messages for i in of_response]
            texts = [[step.text for step in row] for row in steps]
            by_model = np.concatenate(step_probabilities(self.model, messages, texts))
        total, metrics = total_of(self.options, count, scored, by_model)
        failures = failures_of(count, scored, by_model)
        metrics["completions/mean_steps"] = count / len(steps)
        # a step to which no function applies is excluded from the mean
        absent = np.zeros(count, bool) if self.model or scored is None else ~scored.applies

        # NaN where nothing is known: a 0 would be a reward
        scores = np.full(b * k, np.nan)
        step_scores = np.full((b * k, rollout.mask.shape[-1]), np.nan)
        cuts = np.cumsum([len(row) for row in steps])[:-1]
        rewards = zip(ends, np.split(total, cuts), np.split(absent, cuts), strict=True)
        for n, (positions, of_steps, without) in enumerate(rewards):
            step_scores[n][positions] = of_steps
            if not without.all():
                scores[n] = of_steps[~without].mean()
        step_scores = step_scores.reshape(rollout.mask.shape)
        return Judged(scores.reshape(b, k), None, metrics, step_scores, failures)

    def _by_functions(
        self,
        table: PromptTable,
        of_response: Sequence[int],
        steps: Sequence[Sequence[ReasoningStep]],
    ) -> Scored:
        assert self.functions is not None
        flat = [step for row in steps for step in row]
        of_step = [i for i, row in zip(of_response, steps, strict=True) for _ in row]
        about = {
            "before": [step.before for step in flat],
            "response_tokens": [step.tokens for step in flat],
        }
        prompts, texts = [table[i].text for i in of_step], [step.text for step in flat]
        return call_functions(self.functions, prompts, texts, table.columns(of_step, about))


def steps_of(
    table: PromptTable, i: int, tokens: np.ndarray, ends: Sequence[int]
) -> list[ReasoningStep]:
    """The steps of a response to prompt i; `ends` are the positions of their last tokens."""
    borders = [0, *(end + 1 for end in ends)]
    # Decode from the start each time: tokenizers may decode the first token of a text differently.
    prefixes = [table.decode(i, tokens[:border]) for border in borders]
    lengths = [stop - start for start, stop in pairwise(borders)]
    return [
        ReasoningStep(before, after[len(before) :].strip(), n)
        for (before, after), n in zip(pairwise(prefixes), lengths, strict=True)
    ]
