"""What judges the responses of an online run: functions, a reward model, a judge."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jalign.cli import runs
from jalign.cli.build_judge import judge_of
from jalign.config import Config
from jalign.data.examples import Examples
from jalign.rewards.functions import RewardFunctions
from jalign.rewards.preference import preference_matrix
from jalign.rewards.rating import direct_score, self_reward
from jalign.rewards.rlaif import labeler
from jalign.rewards.server import ServerJudge
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


def reward_of(config: Config, mesh: Mesh) -> Reward:
    """Everything in `reward`, as one (nothing there: nothing is said)."""
    c = config.reward
    asked = c.judge.ask
    judge = judge_of(c.judge, mesh) if asked != "nothing" else None
    made = {"score": direct_score, "points": self_reward}
    callables, weights = {}, dict(c.functions)
    if judge and asked in made:
        callables = {"judge": partial(made[asked], judge, **c.judge.options)}
        weights["judge"] = c.judge.weight
    functions = (
        RewardFunctions(weights, options=c.options, callables=callables) if weights else None
    )
    model = runs.reward_model(c.model, mesh) if c.model else None
    prefer = labeler(judge, **c.judge.options) if judge and asked == "preference" else None

    def reward(texts: Texts, numbers: Sequence[int], responses: Responses) -> Judged:
        b, k = len(numbers), len(responses.tokens[0])
        flat = [i for i in numbers for _ in range(k)]
        prompts = [texts.prompt(i) for i in flat]
        tokens = [t for row in responses.tokens for t in row]
        answers = [texts.response(i, t) for i, t in zip(flat, tokens, strict=True)]
        total, metrics = np.zeros(len(flat)), {}
        if functions:
            columns = texts.columns(flat) | {"response_tokens": [len(t) for t in tokens]}
            scored = functions(prompts, answers, columns)
            total, metrics = total + scored.total, scored.metrics()
            for name, why in scored.errors.items():
                LOG.warning("reward %s failed for some responses: %s", name, why)
        if model:
            found = model(prompts, answers)
            known = found[np.isfinite(found)]
            total = total + c.model_weight * found
            metrics["rewards/model/mean"] = float(known.mean()) if known.size else math.nan
            metrics["rewards/model/failed"] = float(found.size - known.size)
        if c.clip:
            total = np.clip(total, -c.clip, c.clip)
        total = total - c.missing_eos_penalty * ~responses.finished.reshape(-1)
        scores = total.reshape(b, k).astype(np.float32) if functions or model else None
        if prefer:
            grouped = [answers[i * k : (i + 1) * k] for i in range(b)]
            wins: np.ndarray | None = preference_matrix(prefer, prompts[::k], grouped)
            metrics |= {f"preference/{n}": x for n, x in prefer.metrics().items()}
        else:
            wins = None if scores is None else bradley_terry(scores, c.temperature)
        if isinstance(judge, ServerJudge):
            metrics |= judge.metrics()
        return Judged(scores, wins, metrics)

    return reward


def bradley_terry(scores: np.ndarray, temperature: float) -> np.ndarray:
    """[B, K, K] sigmoid((score_i - score_j) / temperature); 0.5 where a score is missing, whose
    response is not learnt from.
    """
    gap = (scores[:, :, None] - scores[:, None, :]) / temperature
    gap = np.nan_to_num(gap, nan=0.0, posinf=0.0, neginf=0.0)
    return (1 / (1 + np.exp(-gap))).astype(np.float32)
