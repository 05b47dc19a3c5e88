"""Records as texts: the prompt and the segments of each response, not tokenized yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from jalign.data.chat import Template
from jalign.data.encoder import Encoder
from jalign.data.parsing import ERRORS, RowError
from jalign.data.records import Message, Record
from jalign.data.turns import Segment, joined


@dataclass
class Draft:
    """An example before tokenization."""

    record: Record
    prompt_text: str
    segments: list[list[Segment]]  # of each response
    eos: int | None  # ends every response; None: steps and letters, which have no end
    bos: int | None  # first token, also of a prompt that is cut
    ends: frozenset[int]  # a response that ends with one of them gets no EOS


def is_chat(record: Record) -> bool:
    if not isinstance(record.prompt, str):
        return True
    first = record.responses[0] if record.responses else ""
    return isinstance(first, list) and bool(first) and isinstance(first[0], dict)


def draft_of(
    record: Record, chat: Template | None, turns: str, encoder: Encoder, ends: frozenset[int]
) -> Draft:
    none: frozenset[int] = frozenset()
    if record.joint:
        space, letters = encoder.answers
        segments = [[(letters[response], True)] for response in record.responses]
        return Draft(record, cast(str, record.prompt) + space, segments, None, encoder.bos, none)
    steps = any(isinstance(r, list) and isinstance(r[0], str) for r in record.responses if r)
    if isinstance(record.prompt, str) and not is_chat(record):
        # A text may end with its EOS spelled out: it is kept, and no second one follows.
        last = tuple(cast("list[str]", encoder.tokenizer.convert_ids_to_tokens(sorted(ends))))
        segments = [_plain(response, last) for response in record.responses]
        eos = None if steps else encoder.eos
        return Draft(record, record.prompt, segments, eos, encoder.bos, none if steps else ends)
    assert chat is not None
    try:
        if steps:
            text = chat.render(cast("list[Message]", record.prompt), record.tools, open_turn=True)
            segments = [_plain(response) for response in record.responses]
        else:
            text, segments = _conversation(record, chat, turns)
    except ERRORS as error:
        raise RowError(error, record.where) from error
    # The template for tools may end its turns with another token than the plain one.
    end = chat.used_with(record.tools).end_of_turn
    eos = encoder.id(end) if end else encoder.eos
    first = chat.tokenizer.bos_token if chat.leads_with_bos else None
    bos = encoder.id(first) if first and text.startswith(cast(str, first)) else None
    if steps:
        return Draft(record, text, segments, None, bos, none)
    # a turn that calls a tool may end with a token of its own
    ends = frozenset([eos]) | (encoder.special if end else none)
    return Draft(record, text, segments, eos, bos, ends)


def _plain(response: str | list[str], ends: tuple[str, ...] = ()) -> list[Segment]:
    """A text is one segment, which may contain its own EOS; each step is a segment that ends with a
    line break. Blank text has no segment.
    """
    if isinstance(response, str):
        stripped = response.rstrip()
        response = stripped if stripped.endswith(ends) else response
        return [(response, True)] if stripped else []
    return [(step if step.endswith("\n") else step + "\n", True) for step in response]


def _conversation(record: Record, chat: Template, turns: str) -> tuple[str, list[list[Segment]]]:
    prompt = list(cast("list[Message]", record.prompt))
    responses: list[list[Message]] = list(record.responses)
    if not responses:
        return chat.render(prompt, record.tools, open_turn=True) if prompt else "", []
    if not all(any(_says_something(m) for m in response) for response in responses):
        return "", [[] for _ in responses]  # dropped, and counted, later
    begun = bool(prompt) and prompt[-1]["role"] == "assistant"
    if len(responses) == 1 and turns == "last":
        (response,) = responses
        assistant = [i for i, m in enumerate(response) if m["role"] == "assistant"]
        last = max(
            (i for i in assistant if response[i].get("train") is not False), default=assistant[-1]
        )
        # This message continues the prompt's open turn: in the prompt both must be one message.
        if begun and last and assistant[0] == 0:
            response = [joined(prompt.pop(), response[0]), *response[1:]]
        prompt, responses = [*prompt, *response[:last]], [response[last : last + 1]]
        begun = begun and not last
    done = [
        chat.split(prompt, r, turns=turns, tools=record.tools, continues=begun) for r in responses
    ]
    # Responses share the prompt's tokens in a stream, so it must be the same text for all.
    texts = {text for text, _ in done}
    if len(texts) > 1:
        raise ValueError("the chat template renders the prompt in another way for each response")
    return texts.pop(), [segments for _, segments in done]


def _says_something(m: Message) -> bool:
    return m["role"] == "assistant" and bool(m["content"].strip() or m.get("tool_calls"))


def chat_warnings(records: list[Record], chat: Template, encoder: Encoder) -> list[str]:
    """Warnings about how a template renders these conversations."""
    notes = set(chat.notes)
    if chat.tail.strip():
        notes.add(
            f"the chat template ends an assistant turn with {chat.tail.strip()!r}, which is no "
            f"token of this tokenizer: responses end with {encoder.tokenizer.eos_token} instead"
        )
    control = [t for record in records if (t := _control_token(record, encoder))]
    if control:
        notes.add(
            f"{len(control):,} of {len(records):,} rows have a message with text that the "
            f"tokenizer reads as a control token, such as {control[0]}: whoever writes it can end "
            "a turn or begin one"
        )
    return sorted(notes)


def _control_token(record: Record, encoder: Encoder) -> str | None:
    """The first control token in the text of a message."""
    for messages in (record.prompt, *record.responses):
        for m in messages if isinstance(messages, list) else ():
            if isinstance(m, dict) and (match := encoder.control.search(m["content"])):
                return match.group()
    return None
