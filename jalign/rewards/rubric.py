"""Rubric rewards: a checklist of weighted yes-or-no questions about a response.

Gunjal et al. 2025, "Rubrics as Rewards: Reinforcement Learning Beyond Verifiable Domains".
https://arxiv.org/abs/2507.17746; checklists: Viswanathan et al. 2025,
https://arxiv.org/abs/2507.18624. Wording is our own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from jalign.rewards.judge import Judge, choose
from jalign.rewards.template import load

# Both spellings: whether a word comes with a space depends on tokenizer and template.
ANSWERS = ((" yes", "yes", " Yes", "Yes"), (" no", "no", " No", "No"))


@runtime_checkable
class GroupJudge(Protocol):
    """A judge that reads what the prompts of a group begin with once."""

    def grouped_option_logps(
        self, groups: Sequence[Sequence[str]], options: Sequence[str]
    ) -> list[list[list[float] | None]]:
        """`Judge.option_logps` of each prompt of each group."""
        ...


class Rubric:
    """sum_i w_i P(yes to question i) / sum_i |w_i|, in [-1, 1]; with weights above 0 in [0, 1].

    P is the softmax over the log-probabilities of "yes" and "no". A negative weight is for what a
    response must not do. A model in this process reads prompt and response once for all questions;
    a server is asked each question by itself.

    Args:
      judge: the model that is asked.
      questions: question -> weight, not 0. Each is about the response and answered by yes or no.
      template: with the fields prompt, response and question; the question comes last, so that the
        text before it is shared.

    Raises:
      ValueError: no questions, a weight that is 0 or no number, or a template with other fields.

    Deviations: the papers ask for an answer in words, or a score; here P(yes) is exact and needs
      one token. They normalize by the sum of weights, which is the same where all are above 0.
    """

    def __init__(
        self, judge: Judge, *, questions: Mapping[str, float], template: str | Path = "rubric"
    ):
        self.judge = judge
        self.questions = checked(questions)
        self._template = load(template, ("prompt", "response", "question"))

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float | None]:
        """One number per response; None where a question has no answer."""
        weights = np.array(list(self.questions.values()))
        answers = self.probabilities(prompts, responses)
        return [
            None if p is None else float(np.dot(weights, p) / np.abs(weights).sum())
            for p in answers
        ]

    def probabilities(
        self, prompts: Sequence[str], responses: Sequence[str]
    ) -> list[np.ndarray | None]:
        """P(yes) to each question, [questions], for each response; None where one is unknown."""
        groups = [
            [self._template.fill(prompt=p, response=r, question=q) for q in self.questions]
            for p, r in zip(prompts, responses, strict=True)
        ]
        # in one call, so that a server works on all questions together
        requests = [request for group in groups for request in group]
        # softmax over both spellings of yes and no
        known = choose(_Grouped(self.judge, groups), requests, ANSWERS)
        n = len(self.questions)
        rows = [known[i : i + n] for i in range(0, len(known), n)]
        return [
            None if any(p is None for p in row) else np.array([p[0] for p in row if p is not None])
            for row in rows
        ]


class _Grouped:
    """A judge whose prompts come in groups, for `choose`."""

    def __init__(self, judge: Judge, groups: Sequence[Sequence[str]]):
        self.judge, self.groups = judge, groups

    def complete(
        self, prompts: Sequence[str], *, max_tokens: int, temperature: float
    ) -> list[str | None]:
        return self.judge.complete(prompts, max_tokens=max_tokens, temperature=temperature)

    def option_logps(
        self, prompts: Sequence[str], options: Sequence[str]
    ) -> list[list[float] | None]:
        # a server keeps what prompts begin with by itself
        if not isinstance(self.judge, GroupJudge):
            return self.judge.option_logps(prompts, options)
        grouped = self.judge.grouped_option_logps(self.groups, options)
        return [logps for group in grouped for logps in group]


def checked(questions: object) -> dict[str, float]:
    """Questions and their weights.

    Raises:
      ValueError: not a mapping of questions to weights.
    """
    example = 'such as {"Does it answer the question?": 2.0, "Is it rude?": -1.0}'
    if not isinstance(questions, Mapping) or not questions:
        raise ValueError(f"questions must be weights by question, {example}, got {questions!r:.80}")
    for question, weight in questions.items():
        if not isinstance(question, str) or not question.strip():
            raise ValueError(f"questions: a question must be a text, got {question!r}")
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight == 0:
            raise ValueError(
                f"questions: the weight of {question!r} must be a number other than 0, got "
                f"{weight!r}"
            )
    return {question: float(weight) for question, weight in questions.items()}
