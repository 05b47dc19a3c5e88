"""Verdicts on the answers of two models, kept in a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from jalign.eval.arena.answers import Answer
from jalign.eval.arena.judges import TIE, ArenaJudge, Verdict
from jalign.eval.arena.questions import Question, Say
from jalign.eval.arena.tables import Row, make_table

SCHEMA = pa.schema(
    [
        ("prompt_index", pa.int64()),
        ("first", pa.float64()),
        ("second", pa.float64()),
        ("score_a", pa.float64()),
        ("score_b", pa.float64()),
        ("chars_a", pa.int64()),
        ("chars_b", pa.int64()),
    ]
)


class Battle(NamedTuple):
    """The verdict on the answers A and B of two models to one prompt.

    Attributes:
      prompt_index: number of the prompt.
      first, second: P(A is preferred) with A shown first, and second; None without a verdict.
      score_a, score_b: of a judge that scores single answers.
      chars_a, chars_b: lengths of the answers in characters.
    """

    prompt_index: int
    first: float | None
    second: float | None
    score_a: float | None
    score_b: float | None
    chars_a: int
    chars_b: int


def battles_of(
    judge: ArenaJudge,
    questions: Sequence[Question],
    a: Sequence[Answer],
    b: Sequence[Answer],
    path: Path,
    *,
    size: int,
    say: Say,
    advance: Callable[[int], None],
) -> list[Battle]:
    """The verdicts on all answers of two models, read from the file where they are complete.

    Args:
      size: prompts of a lot, whose verdicts are written together.

    Raises:
      ValueError: kept verdicts are of another judge or other answers.
    """

    def make(lot: Sequence[Any], first: int) -> list[Row]:
        rows = slice(first, first + len(lot))
        return [x._asdict() for x in compare(judge, questions[rows], a[rows], b[rows])]

    items = items_of([question.text for question in questions], a, b)
    rows = make_table(
        path, SCHEMA, items, make, identity=judge.identity, size=size, say=say, advance=advance
    )
    return [Battle(**row) for row in rows]


def items_of(prompts: Sequence[str], a: Sequence[Answer], b: Sequence[Answer]) -> list[list[str]]:
    """What a judge reads, by which kept verdicts are recognized."""
    return [[prompt, x.response, y.response] for prompt, x, y in zip(prompts, a, b, strict=True)]


def compare(
    judge: ArenaJudge, questions: Sequence[Question], a: Sequence[Answer], b: Sequence[Answer]
) -> list[Battle]:
    """Verdicts on pairs of answers; equal answers tie without a question to the judge."""
    differ = [i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x.response != y.response]
    verdicts = dict.fromkeys(range(len(a)), TIE)
    if differ:
        texts = (
            [x.response for x in side] for side in ([a[i] for i in differ], [b[i] for i in differ])
        )
        given = judge([questions[i] for i in differ], *texts)
        verdicts |= dict(zip(differ, given, strict=True))
    return [battle(x, y, verdict) for x, y, verdict in zip(a, b, verdicts.values(), strict=True)]


def battle(a: Answer, b: Answer, verdict: Verdict) -> Battle:
    """The row of one verdict."""
    return Battle(a.prompt_index, *verdict, len(a.response), len(b.response))
