"""Response-level rewards: functions, a reward model, a judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jalign.options import RewardConfig
from jalign.parallel import hosts
from jalign.rewards.functions import RewardFunctions, Scored
from jalign.rewards.judge import Judge
from jalign.rewards.model import RewardModel
from jalign.rewards.preference import BothOrders, preference_matrix
from jalign.rewards.server import ServerJudge
from jalign.rewards.types import Judged
from jalign.rollout.types import Rollout
from jalign.run.prompts import PromptTable
from jalign.run.reward_total import call_functions, failures_of, report_failure, total_of

AskJudge = Callable[[Sequence[str], Sequence[str]], Sequence[float | None]]
"""`(prompts, responses) -> scores`; None if the judge gives no score."""


@dataclass(frozen=True)
class ResponseReward:
    """`reward(table, indices, rollout) -> Judged`: the weighted sum of all configured rewards.

    Attributes:
      options: weights, penalty, clip and temperature.
      functions: reward functions with a weight, including a judge on a server.
      model: a reward model.
      judge: a language model that scores or compares responses.
      in_process: name -> a judge that runs on all devices: every process calls it, and `functions`
        takes its results.
      prefer: compares two responses; win probabilities then come from it, not from scores.
      wins: whether the algorithm reads win probabilities.
      identity: as in `run.rewards.RewardFn`.
    """

    options: RewardConfig
    functions: RewardFunctions | None
    model: RewardModel | None
    judge: Judge | None
    in_process: dict[str, Callable[[Sequence[str], Sequence[str]], list[Any]]]
    prefer: BothOrders | None
    wins: bool
    identity: dict[str, Any]

    def __call__(self, table: PromptTable, indices: Sequence[int], rollout: Rollout) -> Judged:
        b, k = rollout.finished.shape
        of_response, tokens = [i for i in indices for _ in range(k)], rollout.responses()
        prompts = [table[i].text for i in of_response]
        responses = [table.decode(i, ids) for i, ids in zip(of_response, tokens, strict=True)]
        scored = None
        if self.functions:
            lengths = {"response_tokens": [len(ids) for ids in tokens]}
            columns = table.columns(of_response, lengths)
            # on every process: a program over all devices hangs where one process calls it alone
            results = {name: ask(prompts, responses) for name, ask in self.in_process.items()}
            scored = call_functions(self.functions, prompts, responses, columns, results)
        by_model = None
        if self.model:
            messages = [table[i].messages for i in of_response]
            by_model = self.model.of_sampled(messages, responses)
        total, metrics = total_of(self.options, b * k, scored, by_model)
        failures = failures_of(b * k, scored, by_model)
        # in float64: `reward_arrays` subtracts the mean before it rounds to float32
        total = total - self.options.missing_eos_penalty * ~rollout.finished.reshape(-1)
        scores = total.reshape(b, k) if self.functions or self.model else None
        wins = None
        if self.prefer:
            grouped = [responses[i * k : (i + 1) * k] for i in range(b)]
            wins, more, failed = self._preferences(prompts[::k], grouped)
            metrics, failures = metrics | more, failures | failed
        elif self.wins and scores is not None:
            wins = bradley_terry(scores, self.options.temperature)
        # only process 0 has asked the server, so only its counts are right
        if isinstance(self.judge, ServerJudge):
            metrics |= hosts.call_on_main(self.judge.metrics)
        parts, weights = self._parts(scored, by_model, (b, k))
        return Judged(scores, wins, metrics, failures=failures, parts=parts, part_weights=weights)

    def _parts(
        self, scored: Scored | None, by_model: np.ndarray | None, shape: tuple[int, int]
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """[B, K, N] rewards of each function and of the model, and their weights."""
        # by the functions' own order, that of `Scored.each` after it came from another process
        each, weights = [], []
        if scored is not None and self.functions is not None:
            each = [scored.each[name] for name in self.functions.names]
            weights = list(self.functions.weights)
        if by_model is not None:
            each.append(np.where(np.isfinite(by_model), by_model, np.nan))
            weights.append(self.options.model_weight)
        if not each:
            return None, None
        return np.stack(each, -1).reshape(*shape, len(each)), np.asarray(weights)

    def _preferences(
        self, prompts: Sequence[str], grouped: Sequence[Sequence[str]]
    ) -> tuple[np.ndarray, dict[str, float], dict[str, str]]:
        """[B, K, K] win probabilities of the judge, its metrics, and its failures."""
        prefer = self.prefer
        assert prefer is not None

        def compare() -> dict[str, Any]:
            # a list, because `call_on_main` sends JSON
            wins = preference_matrix(prefer, prompts, grouped).tolist()
            return {"wins": wins, "metrics": prefer.metrics(), "why": why_silent(self.judge)}

        everywhere = not isinstance(self.judge, ServerJudge)
        answer = hosts.call_on_main(compare, everywhere=everywhere)
        wins = np.asarray(answer["wins"], np.float32)
        metrics = {f"preference/{name}": x for name, x in answer["metrics"].items()}
        failures = {}
        # // 2: a pair without an answer is NaN in both orders
        if silent := int(np.isnan(wins).sum()) // 2:
            b, k, _ = wins.shape
            pairs = b * k * (k - 1) // 2
            failures["judge"] = report_failure("judge", silent, pairs, "pairs", answer["why"])
        return wins, metrics, failures


def as_function(
    ask: AskJudge, judge: Judge
) -> Callable[[Sequence[str], Sequence[str]], list[float | ValueError]]:
    """Wrap a judge as a reward function; a missing answer becomes a failure with its reason."""

    def reward(prompts: Sequence[str], responses: Sequence[str]) -> list[float | ValueError]:
        scores = ask(prompts, responses)
        # as an error and not NaN, so that `RewardFunctions` reports the reason
        return [ValueError(why_silent(judge)) if x is None else x for x in scores]

    return reward


def why_silent(judge: Judge | None) -> str:
    """The last error of a server, or a message about an unreadable answer."""
    error = judge.counts.last_error if isinstance(judge, ServerJudge) else ""
    return error or "the judge gave no answer that can be read"


def bradley_terry(scores: np.ndarray, temperature: float) -> np.ndarray:
    """[B, K, K] sigmoid((score_i - score_j) / temperature); NaN where a score is missing."""
    scores = np.where(np.isfinite(scores), scores, np.nan)
    gap = (scores[:, :, None] - scores[:, None, :]) / temperature
    small = np.exp(-np.abs(gap))  # cannot overflow
    return (np.where(gap >= 0, 1.0, small) / (1 + small)).astype(np.float32)
