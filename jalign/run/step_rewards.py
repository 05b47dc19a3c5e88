"""What judges the steps of the responses of an online run: functions, a process reward model."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from jalign.options import RewardConfig
from jalign.rewards.functions import RewardFunctions
from jalign.rewards.process import step_probabilities
from jalign.rollout.groups import Responses
from jalign.rollout.steps import step_ends
from jalign.run import folder as runs
from jalign.run.reward_parts import Reward, Texts, asked, failures_of, identity_of, total_of
from jalign.train.rollout import Judged


class Step(NamedTuple):
    """A step of a response.

    Attributes:
      before: the response up to the step.
      text: of the step, without the space around it.
      tokens: how many there are.
    """

    before: str
    text: str
    tokens: int


def step_reward_of(c: RewardConfig) -> Reward:
    """The reward of every step: functions, asked about a step as if it were a response, and the
    probability that a process reward model gives it. That of a response is the mean of its steps'.
    """
    functions = RewardFunctions(c.functions, options=c.options) if c.functions else None
    model = runs.process_model(c.model) if c.model else None

    def reward(texts: Texts, numbers: Sequence[int], responses: Responses) -> Judged:
        k = len(responses.tokens[0])
        of_response = [i for i in numbers for _ in range(k)]
        tokens = [t for row in responses.tokens for t in row]
        ends = [step_ends(texts.tokenizer, t, c.step_separator) for t in tokens]
        parts = zip(of_response, tokens, ends, strict=True)
        steps = [steps_of(texts, i, t, places) for i, t, places in parts]
        flat = [step for row in steps for step in row]
        scored, found = None, None
        if functions:
            numbered = zip(of_response, steps, strict=True)
            of_step = [i for i, row in numbered for _ in row]
            own = {
                "before": [step.before for step in flat],
                "response_tokens": [step.tokens for step in flat],
            }
            columns = texts.columns(of_step, own)
            prompts = [texts.prompt(i) for i in of_step]
            scored = asked(functions, prompts, [step.text for step in flat], columns)
        if model:
            prompts = [texts.given(i) for i in of_response]
            said = [[step.text for step in row] for row in steps]
            found = np.concatenate(step_probabilities(model, prompts, said))
        total, metrics = total_of(c, len(flat), scored, found)
        failures = failures_of(len(flat), scored, found)
        # a step to which no function applies has no reward, and spoils none of the others
        silent = np.zeros(len(flat), bool) if model or scored is None else ~scored.applies
        metrics["completions/mean_steps"] = len(flat) / len(steps)

        scores = np.full(len(tokens), np.nan)
        step_scores = [np.full(len(t), np.nan) for t in tokens]
        cuts = np.cumsum([len(row) for row in steps])[:-1]
        judged = zip(ends, np.split(total, cuts), np.split(silent, cuts), strict=True)
        for n, (places, x, without) in enumerate(judged):
            step_scores[n][places] = x
            if not without.all():
                scores[n] = x[~without].mean()
        shape = len(numbers), k
        grouped = [step_scores[b * k : (b + 1) * k] for b in range(len(numbers))]
        return Judged(scores.reshape(shape), None, metrics, grouped, failures)

    return Reward(reward, identity_of(c, model))


def steps_of(texts: Texts, i: int, tokens: np.ndarray, ends: Sequence[int]) -> list[Step]:
    """The steps of a response to prompt number i; `ends` are the places of their last tokens."""
    borders = [0, *(end + 1 for end in ends)]
    so_far = [texts.response(i, tokens[:border]) for border in borders]
    lengths = [stop - start for start, stop in pairwise(borders)]
    return [
        Step(before, after[len(before) :].strip(), n)
        for (before, after), n in zip(pairwise(so_far), lengths, strict=True)
    ]
