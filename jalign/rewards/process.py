"""A process reward model as a function of texts: probability that each step is correct.

Lightman et al. 2023, "Let's Verify Step by Step", https://arxiv.org/abs/2305.20050. The steps are
tokenized as in training, where each ends with a line break, and the logit is read at the last token
of each (`losses.process_reward`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jalign.data.records import Record
from jalign.rewards.model import Prompt, RewardModel


def step_probabilities(
    model: RewardModel, prompts: Sequence[Prompt], steps: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """[steps] float32 per response: probability that a step is correct, given the previous ones.

    NaN for a blank step, and for steps beyond the length limits of training.

    Args:
      model: a run of `prm`.
      prompts: one per response: text, or messages.
      steps: the steps of each response, without separators.

    Raises:
      ValueError: not as many prompts as responses.
    """
    if len(prompts) != len(steps):
        raise ValueError(f"{len(prompts)} prompts and the steps of {len(steps)} responses")
    pairs = enumerate(zip(prompts, steps, strict=True))
    records = [
        Record(prompt if isinstance(prompt, str) else list(prompt), [list(texts)], {}, row=i)
        for i, (prompt, texts) in pairs
        if texts
    ]
    probabilities = [np.full(len(texts), np.nan, np.float32) for texts in steps]
    examples = model.tokenized(records)
    if not len(examples):
        return probabilities
    rows = np.asarray(examples.extras["row"])
    for i, logits in zip(rows.tolist(), model.at_scored(examples), strict=True):
        probabilities[i][: len(logits)] = 1 / (1 + np.exp(-logits))
        # A blank step still has the token of its line break, and so a logit.
        probabilities[i][[not step.strip() for step in steps[int(i)]]] = np.nan
    return probabilities
