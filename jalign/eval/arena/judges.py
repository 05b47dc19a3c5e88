"""What compares two answers to a prompt: preferences in both orders, or scores of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from scipy import special

from jalign.eval.arena.questions import Question
from jalign.rewards.preference import PreferenceFn

NOTHING: Mapping[str, object] = MappingProxyType({})


class Verdict(NamedTuple):
    """The comparison of answer A with answer B. None: no verdict.

    Attributes:
      first, second: P(A is preferred) with A shown first, and with A shown second.
      score_a, score_b: scores from which these follow, of a judge that scores single answers.
    """

    first: float | None
    second: float | None
    score_a: float | None = None
    score_b: float | None = None


TIE = Verdict(0.5, 0.5)


class ArenaJudge(Protocol):
    """Compares answers.

    Attributes:
      name: of the judge; verdicts are kept in a folder of this name.
      ordered: whether it sees both answers, so that their order may matter.
      identity: JSON values that decide its verdicts, besides questions and answers.
    """

    name: str
    ordered: bool
    identity: Mapping[str, object]

    def __call__(
        self, questions: Sequence[Question], a: Sequence[str], b: Sequence[str]
    ) -> list[Verdict]:
        """One verdict for each question."""
        ...


class PairJudge:
    """A judge that sees both answers; it is asked in both orders, in one call.

    Args:
      prefer: `(prompts, first, second) -> P(the first is preferred)`.
    """

    ordered = True

    def __init__(
        self, prefer: PreferenceFn, name: str = "judge", identity: Mapping[str, object] = NOTHING
    ):
        self.prefer, self.name = prefer, name
        self.identity: Mapping[str, object] = {"judge": name, **identity}

    def __call__(
        self, questions: Sequence[Question], a: Sequence[str], b: Sequence[str]
    ) -> list[Verdict]:
        prompts, a, b = [question.text for question in questions], list(a), list(b)
        # one call: a server answers both orders at the same time
        both = self.prefer(prompts * 2, a + b, b + a)
        n = len(prompts)
        return [
            Verdict(p, None if q is None else 1 - q)
            for p, q in zip(both[:n], both[n:], strict=True)
        ]


class ScoreJudge:
    """A judge that scores single answers: a reward function (the higher score wins, equal ones
    tie), or a reward model, whose P(A is preferred) is sigmoid(score of A - score of B).

    Args:
      score: `(questions, answers) -> scores`; None or NaN is no score.
      soft: whether differences of scores are log-odds, as those of a Bradley-Terry model.
    """

    ordered = False

    def __init__(
        self,
        score: Callable[[Sequence[Question], Sequence[str]], Sequence[float | None]],
        name: str = "score",
        identity: Mapping[str, object] = NOTHING,
        *,
        soft: bool = False,
    ):
        self.score, self.name, self.soft = score, name, soft
        self.identity: Mapping[str, object] = {"judge": name, "soft": soft, **identity}

    def __call__(
        self, questions: Sequence[Question], a: Sequence[str], b: Sequence[str]
    ) -> list[Verdict]:
        scores = self.score([*questions, *questions], [*a, *b])
        values = [math.nan if x is None else float(x) for x in scores]
        return [
            self._verdict(*pair) for pair in zip(values[: len(a)], values[len(a) :], strict=True)
        ]

    def _verdict(self, x: float, y: float) -> Verdict:
        if math.isnan(x) or math.isnan(y):
            kept = [None if math.isnan(z) else z for z in (x, y)]
            return Verdict(None, None, *kept)
        # equal before their difference is taken: -inf - -inf is no number
        p = 0.5 if x == y else float(special.expit(x - y)) if self.soft else float(x > y)
        return Verdict(p, p, x, y)
