"""Normalize messages of all common layouts to `{"role", "content"}` with tool calls.

A null inside a message or a tool schema counts as a missing key: tables (Parquet, Arrow, and JSON
written from them) give every object the keys of all objects in its column, so an intended null
(`"default": null`) cannot be recognized. To keep nulls, write the schemas or the arguments of a
call as JSON text, which is read unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jalign.signatures import nearest

Message = dict[str, Any]
if TYPE_CHECKING:
    Tools = Sequence[Mapping[str, object]]

ROLES = {
    "system": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "model": "assistant", "chatgpt": "assistant", "bing": "assistant",
    "bard": "assistant", "tool": "tool", "observation": "tool", "developer": "developer",
    "function": "tool", "tool_response": "tool", "function_response": "tool", "ipython": "tool",
    "function_call": "assistant", "tool_call": "assistant",
}  # fmt: skip
CALLS = ("function_call", "tool_call")  # roles whose text is a call
MARKS = ("train", "loss", "loss_scale", "training", "weight", "masked")
"""Keys that mark whether a message is trained on; false, 0, or `masked: true` excludes it."""


def messages_of(value: object) -> list[Message]:
    """Messages with the keys role and content, from these, ShareGPT's from and value, or turns of
    input and output. `"train": False` marks an assistant message that is not to be scored.

    Raises:
      ValueError: something that is not a message, an unknown role, content that is not text, a mark
        that is neither yes nor no.
    """
    if isinstance(value, Mapping) or not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"messages must be a list, got {value!r:.80}")
    return [message for m in value for message in _messages(m)]


def cleaned(value: Any) -> Any:
    """Remove keys with null values at every depth; nulls in lists stay."""
    if isinstance(value, Mapping):
        return {k: cleaned(v) for k, v in value.items() if v is not None}
    return [cleaned(v) for v in value] if isinstance(value, list | tuple) else value


def tools_of(value: object) -> list[Mapping[str, object]] | None:
    """Tool schemas from a list of objects, a list of JSON texts, or one JSON text.

    Raises:
      ValueError: a text that is not JSON, or a tool that is not an object.
    """
    value = _from_json(value, "tools") if isinstance(value, str) and value.strip() else value
    value = [value] if isinstance(value, Mapping) else value
    if not value:
        return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"tools must be a list of schemas, got {value!r:.80}")
    tools = [_from_json(t, "tools") if isinstance(t, str) else cleaned(t) for t in value]
    if wrong := [t for t in tools if not isinstance(t, Mapping)]:
        raise ValueError(f"a tool must be an object, got {wrong[0]!r:.80}")
    return tools


def is_messages(value: object) -> bool:
    """Whether this is a list of messages."""
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and (
        {"role", "content"} <= set(value) or {"from", "value"} <= set(value)
    )


def _messages(m: Any) -> list[Message]:
    if isinstance(m, Mapping) and {"input", "output"} <= set(m) and not {"role", "from"} & set(m):
        both = (("user", m["input"]), ("assistant", m["output"]))
        return [{"role": role, "content": _content(text, role)} for role, text in both]
    if not isinstance(m, Mapping) or not ({"role", "from"} & set(m)):
        raise ValueError(f"not a message with role and content (or from and value): {m!r:.80}")
    name, content = m.get("role", m.get("from")), m.get("content", m.get("value"))
    role = ROLES.get(str(name)) or ROLES.get(str(name).lower())
    if role is None:
        raise ValueError(
            f"unknown role {name!r}{nearest(str(name), ROLES)}; there is: {', '.join(ROLES)}"
        )
    taken = ("role", "content", "from", "value", "tool_calls", "function_call", *MARKS)
    # Other keys stay: templates read name, tool_call_id and reasoning_content.
    rest = {k: cleaned(v) for k, v in m.items() if k not in taken and v is not None}
    calls = m.get("tool_calls")
    if str(name).lower() in CALLS and not calls:
        calls, content = _from_json(content, str(name)), None
    elif calls is None and m.get("function_call"):
        calls = m["function_call"]  # OpenAI's format before tools
    message = {"role": role, "content": _content(content, role)} | rest
    if calls and (calls := _calls(calls)):
        message["tool_calls"] = calls
    trained = _mark(m)
    if trained is not None and trained != (role == "assistant"):
        message["train"] = trained
    return [message]


def _content(content: Any, role: str) -> str:
    if isinstance(content, list | tuple):
        content = "".join(_text_part(part) for part in content)
    # Some data sets keep a tool's result as an object; templates print text.
    if role == "tool" and isinstance(content, Mapping):
        content = json.dumps(cleaned(content), ensure_ascii=False)
    if content is not None and not isinstance(content, str):
        raise ValueError(f"a message's content must be text, got {content!r:.80}")
    return content or ""


def _text_part(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
        raise ValueError(f"only text can be trained on, got a message part {part!r:.80}")
    return part["text"]


def _mark(m: Mapping[str, Any]) -> bool | None:
    """Whether a message is marked to be trained on; None without a mark."""
    if m.get("train_detail") is not None:
        raise ValueError("train_detail of a message is not supported: split the message")
    given = {}
    # Two keys are role and content, as in most messages: nothing to look for.
    for key in MARKS if len(m) > 2 else ():
        if (value := m.get(key)) is not None:
            known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
            if str(value).lower() not in known:
                raise ValueError(
                    f"{key} of a message must be 0 or 1 (false or true), got {value!r:.40}"
                )
            given[key] = known[str(value).lower()] != (key == "masked")
    return all(given.values()) if given else None


def _calls(value: Any) -> list[Any]:
    """Tool calls with arguments as objects; arguments given as JSON text are parsed."""
    value = _from_json(value, "tool_calls") if isinstance(value, str) else value
    value = [value] if isinstance(value, Mapping) else value
    if not isinstance(value, Sequence) or not all(isinstance(c, Mapping) for c in value):
        raise ValueError(f"tool_calls must be a list of objects, got {value!r:.80}")
    return [_call(c) for c in value]


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    inner = call.get("function")
    if isinstance(inner, Mapping):
        return {**cleaned({**call, "function": None}), "function": _with_arguments(inner)}
    if "name" in call:
        return {"type": "function", "function": _with_arguments(call)}
    raise ValueError(f"a tool call needs a function with a name, got {call!r:.80}")


def _with_arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        try:
            read = json.loads(arguments) if arguments.strip() else {}
        except json.JSONDecodeError:
            read = None  # text by a model may be invalid JSON
        arguments = read if isinstance(read, dict) else arguments
    else:
        arguments = cleaned(arguments or {})
    kept = {k: v for k, v in function.items() if k not in ("arguments", "parameters")}
    return {**cleaned(kept), "arguments": arguments}


def _from_json(text: Any, name: str) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{name} must be JSON, got {text!r:.80}") from error
