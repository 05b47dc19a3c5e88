"""Rewards and preferences behind /v1/score: models that score texts instead of writing them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from jalign.core import did_you_mean
from jalign.data.examples import Examples
from jalign.data.joint import both_orders
from jalign.data.messages import is_messages, messages_of
from jalign.data.records import Record, parse
from jalign.data.tokenize import tokenize
from jalign.rewards.judge import ModelJudge
from jalign.rewards.model import Prompt, RewardModel
from jalign.run.policy import Policy
from jalign.serve.errors import ApiError, bad_field
from jalign.serve.fields import Fields

Json = dict[str, Any]


class Scorer(Protocol):
    """What scores texts."""

    def rewards(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """A reward of each response.

        Raises:
          ValueError: it compares responses and scores none alone.
        """
        ...

    def preferences(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> list[float | None]:
        """P(first is preferred) in [0, 1]; None where a response is empty or too long."""
        ...


@dataclass
class RewardScorer:
    """A reward model; P(first is preferred) = sigmoid(difference of rewards)."""

    model: RewardModel

    def rewards(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """As `Scorer.rewards`; -inf for an empty response."""
        return [float(x) for x in self.model(prompts, responses)]

    def preferences(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> list[float | None]:
        """As `Scorer.preferences`."""
        both = self.rewards([*prompts, *prompts], [*first, *second])
        pairs = zip(both[: len(first)], both[len(first) :], strict=True)
        return [_sigmoid(a - b) if math.isfinite(a - b) else None for a, b in pairs]


@dataclass
class PairScorer:
    """A model that reads both responses in one prompt (`pair_rm`, `preference_ab`), in both orders.

    Attributes:
      tokenize: records of joint prompts -> examples, as in training.
      logits: examples -> [n, 2] logits of their two letters.
    """

    tokenize: Callable[[Sequence[Record]], Examples]
    logits: Callable[[Examples], np.ndarray]

    def rewards(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        """Raise ValueError: no response has a reward of its own."""
        raise ValueError("this model compares two responses: give `responses`, a list of two texts")

    def preferences(
        self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> list[float | None]:
        """As `Scorer.preferences`: the mean of both orders."""
        rows: list[Record] = []
        for i, (prompt, a, b) in enumerate(zip(prompts, first, second, strict=True)):
            if a != b and a.strip() and b.strip():
                pair = parse({"prompt": prompt, "chosen": a, "rejected": b}, "pairs")
                rows += [record._replace(row=i) for record in both_orders(pair)]
        same = zip(first, second, strict=True)
        out: list[float | None] = [0.5 if a == b and a.strip() else None for a, b in same]
        examples = self.tokenize(rows) if rows else None
        if not examples:
            return out
        # The letter of the first response comes first in both orders.
        gaps = self.logits(examples) @ np.array([1.0, -1.0])
        of_row: dict[int, list[float]] = {}
        for row, gap in zip(examples.extras["row"], gaps, strict=True):
            of_row.setdefault(int(row), []).append(_sigmoid(float(gap)))
        for i, probs in of_row.items():
            out[i] = sum(probs) / 2 if len(probs) == 2 else None
        return out


def pair_ranker(model: RewardModel) -> PairScorer:
    """A `pair_rm` model: the head at each letter."""

    def logits(examples: Examples) -> np.ndarray:
        return np.array([x[-1] for x in model.at_scored(examples)], np.float64).reshape(-1, 2)

    return PairScorer(model.tokenized, logits)


def letter_model(policy: Policy) -> PairScorer:
    """A `preference_ab` model: a language model that answers with a letter."""
    judge = ModelJudge(policy.decoder, policy.tokenizer)

    def logits(examples: Examples) -> np.ndarray:
        rows = [(tuple(e.prompt.tolist()), [int(r[0]) for r in e.responses]) for e in examples]
        return np.array(judge.next_logps(rows), np.float64)

    return PairScorer(lambda records: tokenize(records, policy.tokenizer), logits)


class Scorers:
    """The scorers of a server, by name.

    Args:
      scorers: name -> scorer.
      mesh: the devices of their arrays.
    """

    def __init__(self, scorers: Mapping[str, Scorer], mesh: Mesh):
        self._scorers, self._mesh = scorers, mesh

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._scorers)

    def read(self, body: object) -> Callable[[], Json]:
        """What computes the answer to a body of /v1/score: prompts with `response`, which are
        rewarded, or with `responses`, of which the first is preferred with a probability.

        Raises:
          ApiError: what is wrong with it.
        """
        fields = Fields(body)
        name, scorer = self._scorer(fields.text("model"))
        prompts = _prompts(fields.any("prompt"))
        single, pairs = fields.any("response"), fields.any("responses")
        fields.finish()
        if (single is None) == (pairs is None):
            raise bad_field("response", "give response, or responses: two of each prompt")
        if single is not None:
            texts = _texts("response", single, len(prompts))
            _check_rewards(scorer)
            return lambda: self._answer(name, "score", scorer.rewards, prompts, texts)
        pairs = [pairs] if pairs and all(isinstance(x, str) for x in pairs) else pairs
        if not isinstance(pairs, list) or any(not _is_pair(x) for x in pairs):
            raise bad_field("responses", "responses must be two texts for each prompt")
        if len(pairs) != len(prompts):
            raise bad_field("responses", f"{len(prompts)} prompts and {len(pairs)} pairs")
        first, second = zip(*pairs, strict=True)
        return lambda: self._answer(
            name, "probability", scorer.preferences, prompts, list(first), list(second)
        )

    def _scorer(self, name: str | None) -> tuple[str, Scorer]:
        if name is None and self._scorers:
            name = next(iter(self._scorers))
        if name is None or name not in self._scorers:
            none = ": start the server with a reward model"
            near = did_you_mean(str(name), self._scorers) if self._scorers else none
            message, code = f"no model {name!r} scores{near}", "model_not_found"
            raise ApiError(404, message, param="model", code=code)
        return name, self._scorers[name]

    def _answer(self, model: str, kind: str, ask: Callable[..., Sequence], *texts: Any) -> Json:
        with jax.set_mesh(self._mesh):
            values = ask(*texts)
        # An empty response has no reward, and JSON no infinity.
        finite = [x if x is not None and math.isfinite(x) else None for x in values]
        data = [{"index": i, "object": kind, kind: x} for i, x in enumerate(finite)]
        return {"object": "list", "model": model, "data": data}


def _check_rewards(scorer: Scorer) -> None:
    if isinstance(scorer, PairScorer):
        try:
            scorer.rewards([], [])
        except ValueError as error:
            raise bad_field("response", str(error)) from error


def _prompts(value: object) -> list[Prompt]:
    """A text, messages, or a list of either."""
    if isinstance(value, str) or is_messages(value):
        value = [value]
    if not isinstance(value, list) or not value:
        raise bad_field("prompt", f"prompt must be a text or messages, got {value!r:.80}")
    try:
        return [x if isinstance(x, str) else messages_of(x) for x in value]
    except ValueError as error:
        raise bad_field("prompt", str(error)) from error


def _texts(name: str, value: object, count: int) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(x, str) for x in texts):
        raise bad_field(name, f"{name} must be a text or a list of texts, got {value!r:.80}")
    if len(texts) != count:
        raise bad_field(name, f"{count} prompts and {len(texts)} of {name}")
    return texts


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(x, str) for x in value)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
