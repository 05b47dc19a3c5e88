"""What judges the responses of an online run: functions, a reward model, a judge."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jalign.feedback import common as feedback
from jalign.options import RunOptions
from jalign.parallel import hosts
from jalign.rewards.functions import RewardFunctions
from jalign.rewards.preference import preference_matrix
from jalign.rewards.rating import additive_ratings, direct_score, self_reward
from jalign.rewards.rlaif import Comparison, labeler
from jalign.rewards.server import ServerJudge
from jalign.rollout.groups import Responses
from jalign.run import folder as runs
from jalign.run.decoders import FrozenBase
from jalign.run.judge import judge_of
from jalign.run.reward_parts import (
    Reward,
    Texts,
    asked,
    failures_of,
    identity_of,
    say_failure,
    total_of,
)
from jalign.run.step_rewards import step_reward_of
from jalign.train.rollout import Judged

JUDGED = {"score": direct_score, "points": additive_ratings, "preference": Comparison}
"""What reward.judge.options are options of."""


def reward_of(options: RunOptions, mesh: Mesh, beside: FrozenBase | None = None) -> Reward:
    """Everything in `reward`, as one (nothing there: nothing is said). A reward model's adapters
    may stand on the policy's frozen weights.
    """
    c = options.reward
    if "step_scores" in options.algorithm.rollout_inputs():
        return step_reward_of(c)
    kind = c.judge.ask
    made = {"score": direct_score, "points": self_reward}
    if kind in JUDGED:
        feedback.check_options(c.judge.options, JUDGED[kind])
    judge = judge_of(c.judge, mesh) if kind != "nothing" else None
    # a judge in process is a program over all devices, which all processes run; a server, like a
    # function, is asked by one
    in_process = judge is not None and not isinstance(judge, ServerJudge)
    callables, weights = {}, dict(c.functions)
    if judge and kind in made:
        callables = {"judge": answered(partial(made[kind], judge, **c.judge.options), judge)}
        weights["judge"] = c.judge.weight
    functions = (
        RewardFunctions(weights, options=c.options, callables=callables) if weights else None
    )
    model = runs.reward_model(c.model, mesh, beside) if c.model else None
    prefer = labeler(judge, **c.judge.options) if judge and kind == "preference" else None

    def preferred(prompts: Sequence[str], grouped: list[list[str]]) -> dict[str, Any]:
        assert prefer is not None
        wins = preference_matrix(prefer, prompts, grouped).tolist()
        return {"wins": wins, "metrics": prefer.metrics(), "why": why_silent(judge)}

    def reward(texts: Texts, numbers: Sequence[int], responses: Responses) -> Judged:
        b, k = len(numbers), len(responses.tokens[0])
        flat = [i for i in numbers for _ in range(k)]
        prompts = [texts.prompt(i) for i in flat]
        tokens = [t for row in responses.tokens for t in row]
        answers = [texts.response(i, t) for i, t in zip(flat, tokens, strict=True)]
        scored = None
        if functions:
            columns = texts.columns(flat, {"response_tokens": [len(t) for t in tokens]})
            here = callables if in_process else {}
            said = {name: judged(prompts, answers) for name, judged in here.items()}
            scored = asked(functions, prompts, answers, columns, said)
        found = model.of_sampled([texts.given(i) for i in flat], answers) if model else None
        total, metrics = total_of(c, len(flat), scored, found)
        failures = failures_of(len(flat), scored, found)
        total = total - c.missing_eos_penalty * ~responses.finished.reshape(-1)
        scores = total.reshape(b, k) if functions or model else None
        if prefer:
            grouped = [answers[i * k : (i + 1) * k] for i in range(b)]
            ask = partial(preferred, prompts[::k], grouped)
            told = hosts.call_on_main(ask, everywhere=in_process)
            wins: np.ndarray | None = np.asarray(told["wins"], np.float32)
            metrics |= {f"preference/{n}": x for n, x in told["metrics"].items()}
            if silent := int(np.isnan(wins).sum()) // 2:
                pairs = b * k * (k - 1) // 2
                failures["judge"] = say_failure("judge", silent, pairs, "pairs", told["why"])
        else:
            wins = None if scores is None else bradley_terry(scores, c.temperature)
        if isinstance(judge, ServerJudge):
            metrics |= hosts.call_on_main(judge.metrics)
        return Judged(scores, wins, metrics, failures=failures)

    return Reward(reward, identity_of(c, model, judge))


def answered(
    ask: Callable[[Sequence[str], Sequence[str]], Sequence[float | None]], judge: Any
) -> Callable[[Sequence[str], Sequence[str]], list[Any]]:
    """A judge as a reward function: where it gives no answer it has failed, and says why."""

    def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[Any]:
        said = ask(prompts, responses)
        return [ValueError(why_silent(judge)) if x is None else x for x in said]

    return reward


def why_silent(judge: Any) -> str:
    """The last words of a server about what it did not answer."""
    words = judge.counts.last_error if isinstance(judge, ServerJudge) else ""
    return words or "the judge gave no answer that can be read"


def bradley_terry(scores: np.ndarray, temperature: float) -> np.ndarray:
    """[B, K, K] sigmoid((score_i - score_j) / temperature); NaN where a score is missing: who would
    have won is not known.
    """
    scores = np.where(np.isfinite(scores), scores, np.nan)
    gap = (scores[:, :, None] - scores[:, None, :]) / temperature
    small = np.exp(-np.abs(gap))  # which cannot overflow
    return (np.where(gap >= 0, 1.0, small) / (1 + small)).astype(np.float32)
