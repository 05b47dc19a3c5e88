"""Layouts of public data sets whose columns have a meaning only together.

`canonical` rewrites such a row to the columns that `jalign.data.kinds` recognizes; `CHOICES` lists
the layouts of pairs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from jalign.data.messages import is_messages
from jalign.data.rows import Row, replaced

TIE = "tie"
TEXTS = ("response", "answer", "completion", "output", "text", "content")
RANKS = ("rank",)
RATINGS = ("overall_score", "rating", "score", "reward")
CHATS = ("messages", "conversations", "conversation", "prompt", "chosen", "rejected", "completion")


class Choice(NamedTuple):
    """Two responses and a column that names the better one.

    Attributes:
      first, second, better: names of the columns.
      side: the verdict as the data write it -> 0 (the first is better), 1, or TIE.
      prompt: the column of the prompt if it has an unusual name.
    """

    first: str
    second: str
    better: str
    side: Callable[[Any], Any]
    prompt: str = ""


def _index(value: Any) -> Any:
    # Tables with missing values write integers as floats.
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "-1": TIE}[str(value).lower()]


def _winner(value: Any) -> Any:
    known = {"a": 0, "model_a": 0, "b": 1, "model_b": 1}
    text = str(value).lower()
    return TIE if text.startswith("tie") or text == "bothbad" else known[text]


def _sign(value: Any) -> Any:
    return TIE if float(value) == 0 else int(float(value) > 0)


def _first_if_1(value: Any) -> Any:
    return 1 - _index(value)


# PKU-SafeRLHF has two verdicts per row: helpfulness comes first, so it counts.
CHOICES = (
    Choice("response_0", "response_1", "better_response_id", _index),  # PKU-SafeRLHF
    Choice("response_0", "response_1", "safer_response_id", _index),
    Choice("response_1", "response_2", "preference_strength", _sign),  # HelpSteer2
    Choice("response1", "response2", "overall_preference", _sign, "context"),  # HelpSteer3
    Choice("conversation_a", "conversation_b", "winner", _winner),  # Chatbot Arena
    Choice("response_a", "response_b", "winner", _winner),
    Choice("human_ref_A", "human_ref_B", "labels", _first_if_1, "history"),  # SHP
)
"""The first match is used."""


def canonical(row: Row) -> Row:
    """The row with the usual columns: both responses of a choice as first, second and better;
    responses that hold their own ratings or ranks as lists; messages that are JSON text as lists.
    An invalid verdict is kept, and the parser refuses it. A row that has them is returned itself.
    """
    texts = {name: row[name] for name in CHATS if isinstance(row.get(name), str)}
    chats = {name: chat for name, text in texts.items() if (chat := _chat(text))}
    choice = _choice(row)
    column = None if choice else _rated_column(row)
    if not (chats or choice or column):
        return row
    values = {**row, **chats}
    if choice:
        _choose(values, choice)
    elif column:
        _unfold(values, column)
    return replaced(row, values)


def described(rows: Iterable[Row]) -> str:
    """What `canonical` did to the columns of these rows, in words, or ""."""
    for row in rows:
        if choice := _choice(row):
            return f"first, second, better are {choice.first}, {choice.second}, {choice.better}"
        if column := _rated_column(row):
            return f"{column} hold responses with their ratings or ranks"
    return ""


def _chat(text: str) -> list[Any] | None:
    # Cheap tests before JSON: every text of these columns comes here.
    if not text.lstrip().startswith("[") or "{" not in text:
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return None
    return value if is_messages(value) else None


def _choice(row: Mapping[str, Any]) -> Choice | None:
    fits = (c for c in CHOICES if {c.first, c.second, c.better} <= set(row))
    return next(fits, None)


def _choose(values: dict[str, Any], choice: Choice) -> None:
    verdict = values.pop(choice.better)
    try:
        better = TIE if verdict is None else choice.side(verdict)
    except (KeyError, ValueError, TypeError):
        better = f"{choice.better}: {verdict}"
    values["first"], values["second"] = values.pop(choice.first), values.pop(choice.second)
    values["better"] = better
    if choice.prompt and choice.prompt in values and "prompt" not in values:
        values["prompt"] = values.pop(choice.prompt)


def _rated_column(row: Mapping[str, Any]) -> str | None:
    """The column of a list of objects, each with a response (and its rating or rank)."""
    for name in ("responses", "completions", "answers", "outputs", "candidates"):
        items = row.get(name)
        if not isinstance(items, list) or not all(isinstance(x, Mapping) for x in items):
            continue
        if _key(items, TEXTS) and not any({"role", "from"} & set(x) for x in items):
            return name
    return None


def _unfold(values: dict[str, Any], name: str) -> None:
    items = values.pop(name)
    text = _key(items, TEXTS)
    values["responses"] = [x.get(text) for x in items]
    rating, rank = _key(items, RATINGS), _key(items, RANKS)
    # A column of ratings counts more than ratings inside the responses.
    if rank and not {"ranks", "ratings", "scores"} & set(values):
        values["ranks"] = [x.get(rank) for x in items]
    elif rating and not {"ranks", "ratings", "scores"} & set(values):
        values["ratings"] = [x.get(rating) for x in items]


def _key(items: list[Any], names: tuple[str, ...]) -> str | None:
    return next((n for n in names if any(x.get(n) is not None for x in items)), None)
