"""Rows of any of the usual layouts become records of one shape.

`jalign.data.kinds` decides which columns form which kind of record; this module reads them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from jalign.data.fields import Fields
from jalign.data.kinds import ANNOTATOR, HELPSTEER, OPTIONAL, column, recognize
from jalign.data.layouts import TIE, canonical
from jalign.data.messages import Message, is_messages, messages_of, tools_of
from jalign.data.rows import Row

PROBABILITIES = ("chosen_prob", "chosen_win_rate", "rejected_win_rate")
HH_ASSISTANT = "\n\nAssistant:"


class Record(NamedTuple):
    """One prompt with its responses, not tokenized yet.

    Attributes:
      prompt: text, or messages `{"role", "content"}`; may be empty.
      responses: each a text, messages that start with an assistant turn, or (stepwise) step texts.
      extras: margin, weight, label, rating: numbers; annotator: a name, of which `to_records`
        makes a number; ratings (one per response), step_labels: lists; attribute_ratings: numbers
        by name, NaN where there is none, which `to_records` makes lists of one order.
      tools: tool schemas for the chat template.
      row: number of the row this came from.
      source: name of the source in a mixture.
      place: file and line of the row, if known.
    """

    prompt: str | list[Message]
    responses: list[Any]
    extras: dict[str, Any]
    tools: list[Any] | None = None
    row: int = 0
    source: str = ""
    joint: bool = False  # the responses are answer letters to a prompt that must not be cut
    place: str = ""

    @property
    def where(self) -> str:
        """The place, for messages."""
        return self.place or f"row {self.row}"


class NothingToLearn(ValueError):
    """A valid row without a training signal, such as a pair in which neither side is better."""


def parse(row: Row, kind: str, *, numeric: Collection[str] | None = None) -> Record:
    """One row as a record of a kind that `recognize` found.

    Context comes first in the prompt: a column `system` (a message, or a paragraph of text), then
    `history` (pairs of a question and an answer). A leading assistant message belongs to the
    prompt, since no message precedes it.

    Args:
      row: with the columns of `layouts.canonical`.
      numeric: the optional numbers that are read; None: all that are there.

    Raises:
      ValueError: a missing column, a value of the wrong type, an unknown role or label.
      NothingToLearn: neither response is better.
    """
    return PARSERS[kind](Fields(row, numeric))


def prompt_key(item: Row | Record, kind: str | None = None) -> str:
    """Key by which data is split: the prompt, or the text of a row without one.

    Args:
      kind: of the row; None: what its columns make.

    Raises:
      ValueError: a row that does not parse.
    """
    if not isinstance(item, Record):
        item = _for_its_prompt(canonical(item), kind)
    value = item.prompt or item.responses[:1]
    return value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _for_its_prompt(row: Row, kind: str | None) -> Record:
    # Labels are irrelevant here, and the column may hold words.
    judged = ("binary", "rated")
    if kind:
        return parse(row, "supervised" if kind in judged else kind, numeric=())
    kind = recognize(row, [row])[0]
    try:
        return parse(row, "supervised" if kind in judged else kind, numeric=())
    except (ValueError, TypeError):
        if kind == "prompts" or not column("prompt", row):
            raise
        return parse(row, "prompts")  # columns that make a richer kind by accident


def _value(value: Any, name: str) -> str | list[Message]:
    """Text or messages; None counts as empty text and is dropped, and counted, later."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return messages_of([value])
    if isinstance(value, Sequence):
        return messages_of(value)
    raise ValueError(f"{name} must be text or messages, got {value!r:.80}")


def _prompt(f: Fields) -> str | list[Message]:
    own = f.find("prompt")
    prompt = _value(f.get("prompt"), "prompt")
    if own == "instruction" and isinstance(prompt, str):
        more = f.optional("input")  # Alpaca's layout
        if more is not None and not isinstance(more, str):
            raise ValueError(f"input must be text, got {more!r:.80}")
        prompt = f"{prompt}\n\n{more}" if more else prompt
    past = _history(f)
    if not past:
        return prompt
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}] if prompt else []
    return [*past, *prompt]


def _history(f: Fields) -> list[Message]:
    """Earlier turns: pairs of a question and an answer, or messages. Other texts are not read."""
    if "history" not in f.row or isinstance(f.row["history"], str):
        return []
    past: list[Message] = []
    for turn in f.optional("history") or []:
        if isinstance(turn, Mapping):
            past += messages_of([turn])
        elif isinstance(turn, Sequence) and len(turn) == 2 and not isinstance(turn, str):
            past += messages_of([{"input": turn[0], "output": turn[1]}])
        else:
            raise ValueError(f"history must be pairs of a question and an answer, got {turn!r:.80}")
    return past


def _in_context(f: Fields, record: Record) -> Record:
    """With the system message in front of the prompt, and the tools of a conversation."""
    system, prompt = f.optional("system"), record.prompt
    if system is not None and not isinstance(system, str):
        raise ValueError(f"system must be text, got {system!r:.80}")
    chat = not isinstance(prompt, str) or any(is_messages(r) for r in record.responses)
    if system and not chat:
        prompt = f"{system}\n\n{prompt}"
    elif system:
        prompt = [] if isinstance(prompt, str) else [*prompt]
        if prompt and prompt[0]["role"] == "system":
            if prompt[0]["content"].strip() != system.strip():
                raise ValueError("the column system and the system message say different things")
        else:
            prompt = [{"role": "system", "content": system}, *prompt]
    tools = _tools(f) if chat else None
    return record._replace(prompt=prompt, tools=tools)


def _tools(f: Fields) -> list[Any] | None:
    own = f.find("tools")
    tools = tools_of(f.row[own]) if own else None
    if tools and own == "functions":  # as OpenAI had it before tools
        return [t if "function" in t else {"type": "function", "function": t} for t in tools]
    return tools


def _reply(prompt: str | list[Message], response: str | list[Message]):
    """Prompt and response in the same form: both text, or both messages."""
    if isinstance(response, str):
        return prompt, response if isinstance(prompt, str) else [
            {"role": "assistant", "content": response}
        ]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}] if prompt else []
    # UltraFeedback and others repeat the prompt's messages in every response.
    if response[: len(prompt)] == prompt:
        response = response[len(prompt) :]
    if not prompt and response:
        cut = _first_reply(response)
        return response[:cut], response[cut:]
    return prompt, response


def _extras(f: Fields, kind: str) -> dict[str, Any]:
    read = {}
    for name in OPTIONAL[kind]:
        if given := f.number(name):
            own, value = given
            if name == ANNOTATOR:
                read[name] = _annotator(value, own)
                continue
            most = 1.0 if name in PROBABILITIES else math.inf
            least = 0.0 if name in (*PROBABILITIES, "density_ratio", "weight") else -math.inf
            shown = name if own == name else f"{name} (the column {own})"
            read[name] = _number(value, shown, least, most)
    if "margin" not in read and "margin" in OPTIONAL[kind]:
        both = [f.number(name, "margin") for name in ("score_chosen", "score_rejected")]
        if all(both):
            chosen, rejected = (_number(value, own) for own, value in filter(None, both))
            read["margin"] = chosen - rejected
    return read


def _annotator(value: Any, column: str) -> str:
    """The name of who gave a label, as text: a file may hold numbers."""
    if isinstance(value, float) and value.is_integer():  # a column of numbers with gaps
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{column} must be a name or a whole number, got {value!r:.80}")
    return str(value).strip()


def _number(value: Any, name: str, least: float = -math.inf, most: float = math.inf) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {value!r:.80}") from None
    if not (math.isfinite(number) and least <= number <= most):
        allowed = "finite" if least == -math.inf else f">= {least:g}"
        allowed = allowed if most == math.inf else f"in [{least:g}, {most:g}]"
        raise ValueError(f"{name} must be {allowed}, got {value!r:.80}")
    return number


def _label(value: Any) -> float:
    known = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
    if str(value).lower() not in known:
        raise ValueError(f"label must be True or False (or 1 or 0), got {value!r:.80}")
    return known[str(value).lower()]


def _first_reply(messages: list[Message]) -> int:
    """Index of the first assistant message after another role; the length if there is none.

    Raises:
      ValueError: nothing but the assistant's messages.
    """
    roles = [m["role"] for m in messages]
    asked = next((i for i, r in enumerate(roles) if r not in ("assistant", "system")), None)
    start = 0 if asked is None else asked
    cut = next((i for i in range(start, len(roles)) if roles[i] == "assistant"), len(roles))
    if cut == 0 and roles:
        raise ValueError("a conversation needs a message before the assistant's first")
    return cut


def _supervised(f: Fields, kind: str = "supervised") -> Record:
    if f.find("messages"):
        messages = messages_of(f.get("messages"))
        cut = _first_reply(messages)
        record = Record(messages[:cut], [messages[cut:]], _extras(f, kind))
        return _in_context(f, record)
    null = column("messages", f.row)
    if null and not column("completion", f.row) and not column("text", f.row):
        raise ValueError(f"{null} is null")
    if column("prompt", f.row) and (column("completion", f.row) or not column("text", f.row)):
        prompt, response = _reply(_prompt(f), _value(f.get("completion"), "completion"))
        return _in_context(f, Record(prompt, [response], _extras(f, kind)))
    return Record("", [_value(f.get("text"), "text")], _extras(f, kind))


def _pairs(f: Fields) -> Record:
    by_verdict = not column("chosen", f.row) and column("better", f.row)
    names = ("first", "second") if by_verdict else ("chosen", "rejected")
    sides = [f.get(name) for name in names]
    if by_verdict and _second_is_better(f):
        sides.reverse()
    chosen, rejected = map(_value, sides, ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen and rejected must both be text or both be messages")
    own = f.find("prompt") or f.find("messages")
    prompt = (_prompt(f) if f.find("prompt") else messages_of(f.row[own])) if own else ""
    if not own or (not isinstance(chosen, str) and chosen[:1] and chosen[0]["role"] != "assistant"):
        # the prompt is repeated in both
        prompt, chosen, rejected = _shared_prefix(chosen, rejected)
    else:
        (_, chosen), (prompt, rejected) = _reply(prompt, chosen), _reply(prompt, rejected)
    return _in_context(f, Record(prompt, [chosen, rejected], _extras(f, "pairs")))


def _second_is_better(f: Fields) -> bool:
    """The verdict on `first` and `second`."""
    better = f.get("better")
    if better == TIE or better is None:
        raise NothingToLearn("neither response is better")
    if better not in (0, 1):
        raise ValueError(f"better must be 0 (first) or 1 (second), got {better!r:.40}")
    return better == 1


def _shared_prefix(chosen: Any, rejected: Any):
    """Split off the shared prefix as the prompt; text ends before a space or after `Assistant:`."""
    # Binary search: slices are compared in C, characters would be in Python.
    n, over = 0, min(len(chosen), len(rejected)) + 1
    while over - n > 1:
        middle = (n + over) // 2
        n, over = (middle, over) if chosen[:middle] == rejected[:middle] else (n, middle)
    if not isinstance(chosen, str):
        # A reply that both sides share is not part of the prompt: each side keeps a reply.
        n = min(n, len(chosen) - 1, len(rejected) - 1)
        while n > 0 and "assistant" not in (chosen[n]["role"], rejected[n]["role"]):
            n -= 1
    elif chosen.startswith("\n\nHuman:") and HH_ASSISTANT in chosen[:n]:
        n = chosen.rindex(HH_ASSISTANT, 0, n) + len(HH_ASSISTANT)
    # The space goes to the response: tokenizers join it to the word behind it.
    elif n and chosen[n - 1] == " ":
        n -= 1
    n = max(n, 0)
    return chosen[:n], chosen[n:], rejected[n:]


def _binary(f: Fields) -> Record:
    record = _supervised(f, "binary")
    return record._replace(extras=record.extras | {"label": _label(f.get("label"))})


def _rated(f: Fields) -> Record:
    record, judged, numeric = _supervised(f, "rated"), {}, f.numeric
    if numeric is None or "attribute_ratings" in numeric or not f.find("rating"):
        attributes = _attributes(f)
        judged |= {"attribute_ratings": attributes} if attributes else {}
    wanted = numeric is None or "rating" in numeric
    if not judged or (wanted and column("rating", f.row)):
        judged["rating"] = _number(f.get("rating"), "rating")
    return record._replace(extras=record.extras | judged)


def _attributes(f: Fields) -> dict[str, float]:
    """Ratings by name, NaN for a missing one; empty if the row has no such columns."""
    if "attributes" in f.row:
        value = f.get("attributes")
        with suppress(json.JSONDecodeError):  # text that is not JSON is refused below
            value = json.loads(value) if isinstance(value, str) else value
        if not isinstance(value, Mapping) or not value:
            raise ValueError(f"attributes must be numbers by name, got {value!r:.80}")
    elif all(name in f.row for name in HELPSTEER):
        value = {name: f.optional(name) for name in HELPSTEER}
    else:
        return {}
    return {
        str(name): math.nan if rating is None else _number(rating, f"the attribute {name}")
        for name, rating in value.items()
    }


def _lists(f: Fields) -> Record:
    responses = [_value(r, "responses") for r in f.sequence("responses")]
    if own := f.find("ratings"):
        ratings = [_number(x, own) for x in f.sequence("ratings")]
    else:
        ratings = [-_number(r, "ranks") for r in f.sequence("ranks")]  # rank 1 is best
    if len(ratings) != len(responses):
        raise ValueError(f"{len(responses)} responses but {len(ratings)} ratings or ranks")
    prompt = _prompt(f)
    both = [_reply(prompt, response) for response in responses]
    replies = [reply for _, reply in both]
    extras = _extras(f, "lists") | {"ratings": ratings}
    return _in_context(f, Record(both[0][0] if both else prompt, replies, extras))


def _stepwise(f: Fields) -> Record:
    steps = f.sequence("steps")
    labels = [_number(x, "labels", 0.0, 1.0) for x in f.sequence("labels")]
    if not all(isinstance(s, str) for s in steps):
        raise ValueError("the steps of a stepwise record must be texts")
    if len(steps) != len(labels):
        raise ValueError(f"{len(steps)} steps but {len(labels)} labels")
    extras = _extras(f, "stepwise") | {"step_labels": labels}
    return _in_context(f, Record(_prompt(f), [steps], extras))


def _prompts(f: Fields) -> Record:
    if f.find("prompt") or not f.find("messages"):
        return _in_context(f, Record(_prompt(f), [], {}))
    messages = messages_of(f.get("messages"))
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return _in_context(f, Record(messages, [], {}))


PARSERS = {
    "supervised": _supervised,
    "pairs": _pairs,
    "binary": _binary,
    "rated": _rated,
    "lists": _lists,
    "stepwise": _stepwise,
    "prompts": _prompts,
}
"""Kind -> (columns of a row) to a record; the errors are those of `parse`."""
