"""Rows of any of the usual layouts become records of one shape.

Kinds, named after the formats of the algorithms that read them:

* supervised: `text`, or prompt + completion, or `messages` (also ShareGPT's `conversations`)
* pairs: chosen + rejected; the prompt stands in its own column or is what both begin with
* binary: completion + label (True: desirable)
* lists: responses + scores or ranks (1 is best)
* stepwise: completions (the steps) + labels, one per step
* prompts: a prompt alone, to be answered by the policy
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]
Message = dict[str, Any]

NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "question", "instruction", "query", "problem"),
    "completion": ("completion", "response", "answer", "output", "target"),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "label": ("label",),
    "responses": ("responses", "completions", "answers", "outputs", "candidates"),
    "scores": ("scores", "ratings", "rewards"),
    "ranks": ("ranks", "rank"),
    "steps": ("completions", "steps"),
    "labels": ("labels",),
}
"""What we call a column -> what data sets call it, the first that is there counts."""

NEEDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "stepwise": (("prompt", "steps", "labels"),),
    "lists": (("prompt", "responses", "scores"), ("prompt", "responses", "ranks")),
    "pairs": (("chosen", "rejected"),),
    "binary": (("prompt", "completion", "label"), ("messages", "label"), ("text", "label")),
    "supervised": (("messages",), ("prompt", "completion"), ("text",)),
    "prompts": (("prompt",), ("messages",)),
}
"""Kind -> the sets of columns that make it. Without a wanted kind, the first that fits is taken."""

MADE_FROM: dict[str, tuple[str, ...]] = {
    "pairs": ("lists",),
    "binary": ("pairs",),
    "supervised": ("pairs", "lists", "binary"),
    "prompts": ("pairs", "lists"),
}
"""Kind -> the kinds that `jalign.data.convert` can make it from."""

ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "tool": "tool", "observation": "tool", "developer": "developer",
}  # fmt: skip
OPTIONAL = ("margin", "weight", "score_chosen", "score_rejected")
HH_ASSISTANT = "\n\nAssistant:"


class Record(NamedTuple):
    """One prompt with its responses, not tokenised yet.

    Attributes:
      prompt: text, or messages `{"role", "content"}`; may be empty.
      responses: each a text, messages that start with an assistant turn, or (stepwise) step texts.
      extras: margin, weight, label, scores (one per response), step_labels: numbers or lists.
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


def recognise(
    columns: Iterable[str], rows: Sequence[Row] = (), wanted: str | None = None
) -> tuple[str, str]:
    """Which kind of record these columns hold, and the reason in a sentence.

    Args:
      columns: names of the columns.
      rows: a few rows; they tell text from messages.
      wanted: the kind the algorithm reads. It is returned when the columns hold it; otherwise the
        kind that `jalign.data.convert` can make it from.

    Raises:
      ValueError: nothing fits; says what is there, what is needed and the nearest match.
    """
    wanted = "prompts" if wanted == "samples" else wanted
    if wanted is not None and wanted not in NEEDS:
        near = nearest(wanted, NEEDS)
        raise ValueError(f"unknown kind of data {wanted!r}{near}; there is: {', '.join(NEEDS)}")
    columns = list(columns)
    candidates = [wanted, *MADE_FROM.get(wanted, ())] if wanted else list(NEEDS)
    for kind in candidates:
        for needed in NEEDS[kind]:
            found = {name: c for name in needed if (c := _column(name, columns))}
            if len(found) == len(needed):
                if "prompt" not in found and (prompt := _column("prompt", columns)):
                    found = {"prompt": prompt} | found
                return kind, _explain(kind, found, columns, rows, wanted)
    raise ValueError(_cannot(columns, wanted))


def parse(row: Row, kind: str) -> Record:
    """One row as a record of a kind that `recognise` found.

    Raises:
      ValueError: a missing column, a value of the wrong type, an unknown role or label.
    """
    return _PARSERS[kind](row)


def rename(rows: Iterable[Row], columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Rows with columns renamed, `{our name: their name}`; it replaces one that has our name."""
    renamed = []
    for i, row in enumerate(rows):
        for theirs in columns.values():
            if theirs not in row:
                raise ValueError(
                    f"row {i} has no column {theirs!r}{nearest(theirs, row)}; "
                    f"there is: {', '.join(row)}"
                )
        rest = {k: v for k, v in row.items() if k not in columns and k not in columns.values()}
        renamed.append(rest | {ours: row[theirs] for ours, theirs in columns.items()})
    return renamed


def nearest(given: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing when no name is near."""
    near = difflib.get_close_matches(given, list(map(str, allowed)), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


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
        item = parse(item, recognise(item, [item])[0])
    value = item.prompt or item.responses[:1]
    return value.strip() if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _column(name: str, columns: Iterable[str]) -> str | None:
    return next((alias for alias in NAMES[name] if alias in columns), None)


def _get(row: Row, name: str) -> Any:
    column = _column(name, row)
    if column is None:
        raise ValueError(
            f"no column {name!r}{nearest(name, row)}; there is: {', '.join(row)}; "
            f"allowed names: {', '.join(NAMES[name])}"
        )
    return row[column]


def _text_part(part: Any) -> str:
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        raise ValueError(f"only text can be trained on, got a message part {part!r:.80}")
    return part["text"]


def _value(value: Any, column: str) -> str | list[Message]:
    """Text or messages; None counts as empty text and is dropped, and counted, later."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return messages_of([value])
    if isinstance(value, Sequence):
        return messages_of(value)
    raise ValueError(f"{column} must be text or messages, got {value!r:.80}")


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


def _extras(row: Row) -> dict[str, Any]:
    found = {name: _number(row[name], name) for name in OPTIONAL if row.get(name) is not None}
    if "margin" not in found and {"score_chosen", "score_rejected"} <= set(found):
        found["margin"] = found["score_chosen"] - found["score_rejected"]
    return found


def _number(value: Any, column: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{column} must be a number, got {value!r:.80}") from None


def _label(value: Any) -> float:
    known = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
    if str(value).lower() not in known:
        raise ValueError(f"label must be True or False (or 1 or 0), got {value!r:.80}")
    return known[str(value).lower()]


def _first_reply(messages: list[Message]) -> int:
    return next((i for i, m in enumerate(messages) if m["role"] == "assistant"), len(messages))


def _supervised(row: Row) -> Record:
    tools = row.get("tools") or None
    tools = json.loads(tools) if isinstance(tools, str) else tools
    if _column("messages", row):
        messages = messages_of(_get(row, "messages"))
        cut = _first_reply(messages)
        return Record(messages[:cut], [messages[cut:]], _extras(row), tools)
    if _column("prompt", row) and _column("completion", row):
        prompt, response = _reply(_prompt(row), _value(_get(row, "completion"), "completion"))
        return Record(prompt, [response], _extras(row), tools)
    return Record("", [_value(_get(row, "text"), "text")], _extras(row))


def _pairs(row: Row) -> Record:
    chosen, rejected = (_value(_get(row, name), name) for name in ("chosen", "rejected"))
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise ValueError("chosen and rejected must both be text or both be messages")
    own = _column("prompt", row) or _column("messages", row)
    prompt = (_prompt(row) if _column("prompt", row) else messages_of(row[own])) if own else ""
    if not own or (not isinstance(chosen, str) and chosen[:1] and chosen[0]["role"] != "assistant"):
        prompt, chosen, rejected = _shared_prefix(
            chosen, rejected
        )  # the prompt is repeated in both
        return Record(prompt, [chosen, rejected], _extras(row))
    (_, chosen), (prompt, rejected) = _reply(prompt, chosen), _reply(prompt, rejected)
    return Record(prompt, [chosen, rejected], _extras(row))


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
    record = _supervised(row)
    return record._replace(extras=record.extras | {"label": _label(_get(row, "label"))})


def _lists(row: Row) -> Record:
    responses = [_value(r, "responses") for r in _get(row, "responses")]
    if _column("scores", row):
        scores = [_number(s, "scores") for s in _get(row, "scores")]
    else:
        scores = [-_number(r, "ranks") for r in _get(row, "ranks")]  # rank 1 is best
    if len(scores) != len(responses):
        raise ValueError(f"{len(responses)} responses but {len(scores)} scores or ranks")
    prompt = _prompt(row)
    both = [_reply(prompt, response) for response in responses]
    replies = [reply for _, reply in both]
    return Record(both[0][0] if both else prompt, replies, _extras(row) | {"scores": scores})


def _stepwise(row: Row) -> Record:
    steps, labels = list(_get(row, "steps")), [_number(x, "labels") for x in _get(row, "labels")]
    if not all(isinstance(s, str) for s in steps):
        raise ValueError("the steps of a stepwise record must be texts")
    if len(steps) != len(labels):
        raise ValueError(f"{len(steps)} steps but {len(labels)} labels")
    return Record(_prompt(row), [steps], _extras(row) | {"step_labels": labels})


def _prompts(row: Row) -> Record:
    if _column("prompt", row):
        return Record(_prompt(row), [], {})
    messages = messages_of(_get(row, "messages"))
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()
    return Record(messages, [], {})


_PARSERS = {
    "supervised": _supervised,
    "pairs": _pairs,
    "binary": _binary,
    "lists": _lists,
    "stepwise": _stepwise,
    "prompts": _prompts,
}


def _explain(
    kind: str, found: Mapping[str, str], columns: list[str], rows: Sequence[Row], wanted: str | None
) -> str:
    """`pairs, from prompt (messages), chosen (text) and rejected (text)`."""

    def form(column: str) -> str:
        value = rows[0].get(column) if rows else None
        if isinstance(value, str):
            return " (text)"
        if isinstance(value, Sequence) and value and isinstance(value[0], Mapping):
            return " (messages)"
        return f" ({type(value).__name__})" if value is not None else ""

    names = [f"{c if c == n else f'{c} as {n}'}{form(c)}" for n, c in found.items()]
    text = f"{kind}, from the columns {', '.join(names)}"
    if kind == "pairs" and "prompt" not in found:
        text += "; the prompt is what chosen and rejected both begin with"
    if optional := [c for c in OPTIONAL if c in columns]:
        text += f"; also read: {', '.join(optional)}"
    return text + (f"; made into {wanted}" if wanted and wanted != kind else "")


def _cannot(columns: list[str], wanted: str | None) -> str:
    kinds = [wanted] if wanted else list(NEEDS)
    lines = []
    for kind in kinds:
        for needed in NEEDS[kind]:
            missing = [n for n in needed if _column(n, columns) is None]
            hints = "".join(f" {n!r} is missing{nearest(n, columns)}" for n in missing)
            lines.append(f"  {kind} needs {', '.join(needed)}:{hints}")
    aim = f"these columns do not make {wanted!r} data" if wanted else "unrecognised columns"
    return f"{aim}: {', '.join(columns) or 'none'}\n" + "\n".join(lines)
