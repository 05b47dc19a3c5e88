"""Answers of one model to the prompts of an arena, kept in a Parquet file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa

from jalign.eval.arena.entrants import Entrant
from jalign.eval.arena.questions import Question, Say
from jalign.eval.arena.tables import Row, make_table, read_table
from jalign.models.limits import check_rows
from jalign.options import ArenaConfig
from jalign.rollout.groups import respond
from jalign.rollout.sampler import Settings
from jalign.rollout.text import continuation
from jalign.run.chat_prompts import as_chats, encode_prompts
from jalign.run.policy import Policy

SCHEMA = pa.schema(
    [
        ("prompt_index", pa.int64()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("tokens", pa.int64()),
        ("finished", pa.bool_()),
    ]
)

# Prompts of similar length share a batch: a lot of one batch would sort nothing.
BATCHES_PER_LOT = 4


class Answer(NamedTuple):
    """A row of the file.

    Attributes:
      prompt_index: number of the prompt. prompt: its text.
      response: the text of the answer, without the token that ended it.
      tokens: of the response, the end included.
      finished: whether it ended by itself; otherwise it was cut at max_new_tokens.
    """

    prompt_index: int
    prompt: str
    response: str
    tokens: int
    finished: bool


def answers_of(
    entrant: Entrant,
    questions: Sequence[Question],
    options: ArenaConfig,
    path: Path,
    say: Say,
    advance: Callable[[int], None],
) -> list[Answer]:
    """The answers, read from the file where they are complete; the model is loaded when the first
    missing one is needed.

    Raises:
      ValueError: kept answers are of other weights, prompts or options.
    """
    loaded: list[Policy] = []

    def make(lot: Sequence[Any], first: int) -> list[Row]:
        if not loaded:
            loaded.append(entrant.load())
        asked = questions[first : first + len(lot)]
        rows = sample_answers(loaded[0], asked, options, first, len(questions), say)
        return [row._asdict() for row in rows]

    names = ("chat", "max_new_tokens", "temperature", "top_p", "batch_size", "seed")
    identity = {"model": entrant.origin, "weights": entrant.weights}
    identity |= {name: asdict(options)[name] for name in names}
    size = BATCHES_PER_LOT * min(options.batch_size, len(questions))
    items = [question.as_json() for question in questions]
    rows = make_table(
        path, SCHEMA, items, make, identity=identity, size=size, say=say, advance=advance
    )
    return [Answer(**row) for row in rows]


def read_answers(path: Path) -> list[Answer]:
    """The answers in a complete file."""
    if not path.is_file():
        raise ValueError(f"there are no complete answers in {path}: run the arena to its end")
    return [Answer(**row) for row in read_table(path)]


def sample_answers(
    policy: Policy,
    questions: Sequence[Question],
    options: ArenaConfig,
    first: int,
    count: int,
    say: Say,
) -> list[Answer]:
    """Sample the answers to some of the prompts.

    Args:
      first: number of the first of them; the random key depends on it.
      count: prompts of the arena: a last, smaller lot is sampled with the batch size of the others.
    """
    tokenizer, eos = policy.tokenizer, policy.eos
    asked = [dict(question.as_json()) for question in questions]
    rows, note = as_chats(asked, 0, tokenizer, options.chat, None)
    ids = encode_prompts(rows, tokenizer)
    warning = check_rows(
        ids, policy.decoder.spec, sampled=options.max_new_tokens, tokenizer=tokenizer,
        model=policy.path,
    )  # fmt: skip
    if first == 0:
        for line in filter(None, (note, warning)):
            say(line)
    settings = Settings(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        eos=eos,
    )
    # one key per position, so that a killed command continues with the same random numbers
    key = jax.random.fold_in(jax.random.key(options.seed), first)
    prompts = [np.asarray(row, np.int32) for row in ids]
    size = min(options.batch_size, count)
    rollout = respond(policy.decoder, prompts, settings, key, batch_size=size)
    responses = [response.tolist() for response in rollout.responses()]
    return [
        Answer(
            first + i,
            questions[i].text,
            continuation(tokenizer, ids[i], response, eos),
            len(response),
            bool(rollout.finished[i, 0]),
        )
        for i, response in enumerate(responses)
    ]
