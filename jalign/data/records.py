"""Rows of any of the usual layouts become records of one shape.

`jalign.data.kinds` says which columns make which kind of record; here they are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from jalign.data.kinds import (
    HELPSTEER,
    OPTIONAL,
    Row,
    column,
    names_of,
    nearest,
    optional_column,
    recognise,
)

Message = dict[str, Any]

ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "tool": "tool", "observation": "tool", "developer": "developer",
}  # fmt: skip
PROBABILITIES = ("chosen_prob", "chosen_win_rate", "rejected_win_rate")
HH_ASSISTANT = "\n\nAssistant:"


class Record(NamedTuple):
    """One prompt with its responses, not tokenised yet.

    Attributes:
      prompt: text, or messages `{"role", "content"}`; may be empty.
      responses: each a text, messages that start with an assistant turn, or (stepwise) step texts.
      extras: margin, weight, label, rating: numbers; ratings (one per response), step_labels:
        lists; attribute_ratings: numbers by name, NaN where there is none, which `to_records`
        makes lists of one order.
      tools: tool schemas for the chat template.
      row: number of the row this came from.
      source: name of the source in a mixture.
    """

    prompt: str | list[Message]
    responses: list[Any]
    extras: dict[str, Any]
    tools: list[Any] | None = None
    row: int = 0
    source: str = ""
    joint: bool = False  # the responses are answer letters to a prompt that must not be cut


def parse(row: Row, kind: str) -> Record:
    """One row as a record of a kind that `recognise` found.

    Raises:
      ValueError: a missing column, a value of the wrong type, an unknown role or label.
    """
    return _PARSERS[kind](row)


def messages_of(value: Sequence[Any]) -> list[Message]:
    """Messages with the keys role and content, from these or ShareGPT's from and value.

    Raises:
      ValueError: something that is not a message, an unknown role, content that is not text.
    """
    out = []
    for m in value:
        if not isinstance(m, Mapping) or not ({"role", "from"} & set(m)):
            raise ValueError(f"not a message with role and content (or from and value): {m!r:.80}")
        role, content = m.get("role", m.get("from")), m.get("content", m.get("value"))
        if role not in ROLES:
            raise ValueError(
                f"unknown role {role!r}{nearest(str(role), ROLES)}; there is: {', '.join(ROLES)}"
            )
        if isinstance(content, list):
            content = "".join(_text_part(part) for part in content)
        if content is not None and not isinstance(content, str):
            raise ValueError(f"a message's content must be text, got {content!r:.80}")
        rest = {
            k: v
            for k, v in m.items()
            if k not in ("role", "content", "from", "value") and v is not None
        }
        out.append({"role": ROLES[role], "content": content or "", **rest})
    return out


def prompt_key(item: Row | Record) -> str:
    """What tells prompts apart when data is split: the prompt, or the text where there is none."""
    if not isinstance(item, Record):
        kind = recognise(item, [item])[0]
        # what an answer was judged to be is nobody's business here, and may be a column of words
        item = parse(item, "supervised" if kind in ("binary", "rated") else kind)
    value = item.prompt or item.responses[:1]
    return value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _get(row: Row, name: str) -> Any:
    found = column(name, row)
    if found is None:
        raise ValueError(
            f"no column {name!r}{nearest(name, row)}; there is: {', '.join(row)}; "
            f"allowed names: {', '.join(names_of(name))}"
        )
    return row[found]


def _text_part(part: Any) -> str:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        raise ValueError(f"only text can be trained on, got a message part {part!r:.80}")
    return part["text"]


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


def _prompt(row: Row) -> str | list[Message]:
    value = _value(_get(row, "prompt"), "prompt")
    if (
        isinstance(value, str)
        and "instruction" in row
        and isinstance(row.get("input"), str)
        and row["input"]
    ):
        return f"{value}\n\n{row['input']}"  # Alpaca's layout
    return value


def _reply(prompt: str | list[Message], response: str | list[Message]):
    """Prompt and response in one and the same form: both text, or both messages."""
    if isinstance(response, str):
        return prompt, response if isinstance(prompt, str) else [
            {"role": "assistant", "content": response}
        ]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}] if prompt else []
    return prompt, response[len(prompt) :] if response[: len(prompt)] == prompt else response


def _extras(row: Row, kind: str) -> dict[str, Any]:
    found = {}
    for name in OPTIONAL[kind]:
        own = optional_column(name, row)
        if own is not None and row[own] is not None:
            most = 1.0 if name in PROBABILITIES else math.inf
            least = 0.0 if name in (*PROBABILITIES, "density_ratio", "weight") else -math.inf
            shown = name if own == name else f"{name} (the column {own})"
            found[name] = _number(row[own], shown, least, most)
    if "margin" not in found and {"score_chosen", "score_rejected"} <= set(found):
        found["margin"] = found["score_chosen"] - found["score_rejected"]
    return found


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
    return next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))


def _supervised(row: Row, kind: str = "supervised") -> Record:
    tools = row.get("tools") or None
    tools = json.loads(tools) if isinstance(tools, str) else tools
    if column("messages", row):
        messages = messages_of(_get(row, "messages"))
        cut = _first_reply(messages)
        return Record(messages[:cut], [messages[cut:]], _extras(row, kind), tools)
    if column("prompt", row) and column("completion", row):
        prompt, response = _reply(_prompt(row), _value(_get(row, "completion"), "completion"))
        return Record(prompt, [response], _extras(row, kind), tools)
    return Record("", [_value(_get(row, "text"), "text")], _extras(row, kind))


def _pairs(row: Row) -> Record:
    chosen, rejected = (_value(_get(row, name), name) for name in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen and rejected must both be text or both be messages")
    own = column("prompt", row) or column("messages", row)
    prompt = (_prompt(row) if column("prompt", row) else messages_of(row[own])) if own else ""
    if not own or (not isinstance(chosen, str) and chosen[:1] and chosen[0]["role"] != "assistant"):
        prompt, chosen, rejected = _shared_prefix(
            chosen, rejected
        )  # the prompt is repeated in both
        return Record(prompt, [chosen, rejected], _extras(row, "pairs"))
    (_, chosen), (prompt, rejected) = _reply(prompt, chosen), _reply(prompt, rejected)
    return Record(prompt, [chosen, rejected], _extras(row, "pairs"))


def _shared_prefix(chosen: Any, rejected: Any):
    """What both begin with is the prompt; text ends before a space or after HH's `Assistant:`."""
    n, over = 0, min(len(chosen), len(rejected)) + 1
    while over - n > 1:
        middle = (n + over) // 2
        n, over = (middle, over) if chosen[:middle] == rejected[:middle] else (n, middle)
    if not isinstance(chosen, str):
        # A reply that both share is no prompt of its own: never leave a side without a reply.
        n = min(n, len(chosen) - 1, len(rejected) - 1)
        while n > 0 and "assistant" not in (chosen[n]["role"], rejected[n]["role"]):
            n -= 1
    elif chosen.startswith("\n\nHuman:") and HH_ASSISTANT in chosen[:n]:
        n = chosen.rindex(HH_ASSISTANT, 0, n) + len(HH_ASSISTANT)
    elif n and chosen[n - 1] == " ":
        n -= 1
    n = max(n, 0)
    return chosen[:n], chosen[n:], rejected[n:]


def _binary(row: Row) -> Record:
    record = _supervised(row, "binary")
    return record._replace(extras=record.extras | {"label": _label(_get(row, "label"))})


def _rated(row: Row) -> Record:
    record, judged = _supervised(row, "rated"), {}
    if attributes := _attributes(row):
        judged["attribute_ratings"] = attributes
    if column("rating", row) or not attributes:
        judged["rating"] = _number(_get(row, "rating"), "rating")
    return record._replace(extras=record.extras | judged)


def _attributes(row: Row) -> dict[str, float]:
    """Ratings by name, NaN where there is none; nothing where the row has no such columns."""
    if "attributes" in row:
        value = row["attributes"]
        with suppress(json.JSONDecodeError):  # a text that is no JSON is refused below
            value = json.loads(value) if isinstance(value, str) else value
        if not isinstance(value, Mapping) or not value:
            raise ValueError(f"attributes must be numbers by name, got {value!r:.80}")
    elif all(name in row for name in HELPSTEER):
        value = {name: row[name] for name in HELPSTEER}
    else:
        return {}
    return {
        str(name): math.nan if rating is None else _number(rating, f"the attribute {name}")
        for name, rating in value.items()
    }


def _lists(row: Row) -> Record:
    responses = [_value(r, "responses") for r in _get(row, "responses")]
    if found := column("ratings", row):
        ratings = [_number(x, found) for x in row[found]]
    else:
        ratings = [-_number(r, "ranks") for r in _get(row, "ranks")]  # rank 1 is best
    if len(ratings) != len(responses):
        raise ValueError(f"{len(responses)} responses but {len(ratings)} ratings or ranks")
    prompt = _prompt(row)
    both = [_reply(prompt, response) for response in responses]
    replies = [reply for _, reply in both]
    extras = _extras(row, "lists") | {"ratings": ratings}
    return Record(both[0][0] if both else prompt, replies, extras)


def _stepwise(row: Row) -> Record:
    steps = list(_get(row, "steps"))
    labels = [_number(x, "labels", 0.0, 1.0) for x in _get(row, "labels")]
    if not all(isinstance(s, str) for s in steps):
        raise ValueError("the steps of a stepwise record must be texts")
    if len(steps) != len(labels):
        raise ValueError(f"{len(steps)} steps but {len(labels)} labels")
    return Record(_prompt(row), [steps], _extras(row, "stepwise") | {"step_labels": labels})


def _prompts(row: Row) -> Record:
    if column("prompt", row):
        return Record(_prompt(row), [], {})
    messages = messages_of(_get(row, "messages"))
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return Record(messages, [], {})


_PARSERS = {
    "supervised": _supervised,
    "pairs": _pairs,
    "binary": _binary,
    "rated": _rated,
    "lists": _lists,
    "stepwise": _stepwise,
    "prompts": _prompts,
}
