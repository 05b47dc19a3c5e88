"""The prompts of an arena."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jalign.data.records import Message
from jalign.data.rows import Row
from jalign.rewards.label import text_of
from jalign.run import data as run_data
from jalign.run import folder as runs
from jalign.run import run_model
from jalign.run.prompts import PromptRow, as_row

Say = Callable[[str], None]


class Question(NamedTuple):
    """A prompt that every model answers.

    Attributes:
      prompt: text, or messages.
      tools: schemas for the chat template, or None.
      columns: all columns of its row, which reward functions may read.
    """

    prompt: str | list[Message]
    tools: list[object] | None
    columns: Mapping[str, object]

    @property
    def text(self) -> str:
        """The prompt as a judge reads it: messages with their roles, one alone without."""
        return text_of(self.prompt)

    def as_json(self) -> dict[str, Any]:
        """What a model reads, as a JSON value."""
        return {"prompt": self.prompt} | ({"tools": self.tools} if self.tools else {})


def questions_of(
    rows: Sequence[PromptRow], limit: int = 0, say: Say = lambda text: None
) -> list[Question]:
    """The distinct prompts of rows of any layout, texts or messages.

    Args:
      limit: most prompts; 0 is all.

    Raises:
      ValueError: there is no prompt.
    """
    plain: list[Row] = [as_row(row) for row in rows]
    questions: dict[str, Question] = {}
    for record in run_data.prompt_records(plain, say):
        question = Question(record.prompt, record.tools, plain[record.row])
        # pairs share prompts, and greedy answers to one prompt would be judged several times
        questions.setdefault(repr(question.as_json()), question)
    if not questions:
        raise ValueError("there are no prompts to answer")
    return list(questions.values())[: limit or None]


def read_questions(
    prompts: str | None, models: Sequence[str], limit: int, say: Say
) -> list[Question]:
    """The prompts of a file or data set; None reads the held-out ones of the first run.

    Raises:
      ValueError: no model is a run, or its held-out data are empty.
    """
    if prompts:
        return questions_of(run_data.rows_of(prompts, "train"), limit, say)
    for name in models:
        if run := run_model.named(name):
            rows = run_data.held_rows(runs.options_of(run[0]))
            if not rows:
                raise ValueError(f"{name} has no held-out prompts: give --prompts FILE")
            questions = questions_of(rows, limit, say)
            say(f"{len(questions)} held-out prompts of {name}")
            return questions
    raise ValueError("none of the models is a run with held-out prompts: give --prompts FILE")
