"""Locate the assistant's turns in the text of a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from jalign.data.messages import Message

if TYPE_CHECKING:
    from jalign.data.chat import Template
    from jalign.data.messages import Tools

Segment = tuple[str, bool]
Span = tuple[int, int]


def split(
    template: Template,
    prompt: Sequence[Message],
    response: Sequence[Message],
    turns: str,
    tools: Tools | None,
    continues: bool,
) -> tuple[str, list[Segment]]:
    """As `Template.split`, by this very template."""
    assistant = [i for i, m in enumerate(response) if m["role"] == "assistant"]
    if not assistant:
        raise ValueError("the response has no assistant turn")
    response = [_without_end(template, m) for m in response[: assistant[-1] + 1]]
    begun = ""
    if continues and assistant[0] == 0:
        begun = template.render(prompt, tools, open_turn=True)
        prompt, response = prompt[:-1], [joined(prompt[-1], response[0]), *response[1:]]
    conversation = [*prompt, *response]
    at = [len(prompt) + i for i in assistant]
    if template.marked:
        text, marks = template.rendered(conversation, tools, return_assistant_tokens_mask=True)
        groups = _by_turn(template, text, marks, conversation, at, tools)
    else:
        text = template.rendered(conversation, tools)[0]
        try:
            groups = [[_span(template, text, conversation, i, tools)] for i in at]
        except _Rewritten:
            alone = not begun and len(conversation) == at[0] + 1
            own = _own_words(template, conversation, tools) if alone else None
            if own is None:
                raise _Rewritten(turns) from None
            return own
    if begun:
        first, end = groups[0][0]
        if not (text.startswith(begun) and first <= len(begun) <= end):
            raise ValueError(
                "the prompt ends with an assistant message, which the chat template renders "
                "in another way when it goes on"
            )
        groups[0][0] = (len(begun), end)
    learned = [
        response[i].get("train") is not False and (turns == "all" or i == assistant[-1])
        for i in assistant
    ]
    spans = [(a, b, scored) for g, scored in zip(groups, learned, strict=True) for a, b in g]
    start = place = spans[0][0]
    segments: list[Segment] = []
    for a, b, scored in spans:
        if a > place:
            segments.append((text[place:a], False))
        segments.append((text[a:b], scored))
        place = b
    return text[:start], segments


def _without_end(template: Template, message: Message) -> Message:
    """An assistant message whose text does not bring its own end of turn."""
    # Sampled text often keeps its EOS; the template would write a second one.
    text = message["content"].rstrip() if message["role"] == "assistant" else ""
    eos = cast("str | None", template.tokenizer.eos_token)
    ends = tuple(t for t in (template.end_of_turn, eos) if t)
    if not text.endswith(ends):
        return message
    while text.endswith(ends):
        text = text.removesuffix(next(t for t in ends if text.endswith(t))).rstrip()
    return {**message, "content": text}


def _span(
    template: Template, text: str, conversation: Sequence[Message], i: int, tools: Tools | None
) -> Span:
    """Span of message i in the text, up to its end of turn."""
    start = _start(template, text, conversation, i, tools)
    last = i + 1 == len(conversation)
    until = text if last else template.rendered(conversation[: i + 1], tools)[0]
    end = len(until.removesuffix(template.tail))
    if closed := template.end_of_turn:
        at = until.rfind(closed, start)
        end = at + len(closed) if at >= 0 else len(until.rstrip())
    # Text behind a turn may depend on whether another follows, as Phi-3's EOS does.
    if not text.startswith(until[:end]):
        raise _Rewritten
    return start, end


def _start(
    template: Template, text: str, conversation: Sequence[Message], i: int, tools: Tools | None
) -> int:
    """Start of the text of assistant message i, behind the header of the turn."""
    earlier, before = conversation[:i], None
    with suppress(ValueError):
        before = template.rendered(earlier, tools, add_generation_prompt=True)[0]
    if before is not None and text.startswith(before):
        return len(before)
    if not any(m["role"] == "user" for m in earlier):  # templates refuse to open such a chat
        mark = template.header or conversation[i]["content"].strip()
        if mark and (at := text.find(mark)) >= 0:
            return at + len(template.header)
    raise _Rewritten


def _own_words(
    template: Template, conversation: Sequence[Message], tools: Tools | None
) -> tuple[str, list[Segment]] | None:
    """The last message as the model has to write it behind the prompt's open turn, for templates
    that render it differently: those of reasoning models open the thoughts in the prompt, and
    drop them from earlier turns.
    """
    *prompt, message = conversation
    if message.get("tool_calls") or not prompt:
        return None
    text, content = template.render(prompt, tools, open_turn=True), message["content"]
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    if text.rstrip().endswith("<think>"):
        if "</think>" in content:
            content = content.lstrip().removeprefix("<think>").lstrip("\n")
        else:
            content = f"{thoughts.strip()}\n</think>\n\n{content.lstrip()}"
    elif thoughts:
        return None
    template.notes.add(
        "the chat template renders a last answer in another way than its own prompt asks for "
        "it: responses are the text of the messages"
    )
    scored = message.get("train") is not False
    return text, [(content + (template.end_of_turn or ""), scored)]


def _by_turn(
    template: Template,
    text: str,
    marks: list[Span],
    conversation: Sequence[Message],
    at: list[int],
    tools: Tools | None,
) -> list[list[Span]]:
    """The marked spans of each assistant turn in `at`, each up to its end of turn."""
    turns = [i for i, m in enumerate(conversation) if m["role"] == "assistant"]
    if len(marks) == len(turns):
        groups = [[mark] for mark in marks][-len(at) :]
    else:  # several marks per turn, such as a separate block for its end
        starts = [_start(template, text, conversation, i, tools) for i in at]
        groups = [
            [m for m in marks if a <= m[0] < b]
            for a, b in zip(starts, [*starts[1:], len(text)], strict=True)
        ]
    if not all(groups):
        raise ValueError(
            "the chat template marks no text of some assistant turns with {% generation %}"
        )
    return [_closed(template, text, group) for group in groups]


def _closed(template: Template, text: str, spans: list[Span]) -> list[Span]:
    """The spans of a turn including its end of turn, which may be inside or right behind one."""
    end = template.end_of_turn
    if end is None:
        return spans
    ends = [(k, text.rfind(end, a, b)) for k, (a, b) in enumerate(spans)]
    if closed := [(k, at) for k, at in ends if at >= 0]:
        k, at = closed[-1]
        return [*spans[:k], (spans[k][0], at + len(end))]
    a, b = spans[-1]
    if behind := re.compile(r"\s*" + re.escape(end)).match(text, b):
        return [*spans[:-1], (a, behind.end())]
    return spans


def joined(first: Message, then: Message) -> Message:
    """Two messages of one turn as one."""
    return {**then, "content": first["content"] + then["content"]}


class _Rewritten(ValueError):
    """A template that changes earlier turns."""

    def __init__(self, turns: str = "last"):
        advice = ", or set data.loss_turns to last" if turns == "all" else ""
        super().__init__(
            "the chat template renders the first messages of a conversation in another way when it "
            "goes on, so that what the assistant says cannot be found in it; mark it with "
            f"{{% generation %}} ... {{% endgeneration %}} in a data.template of your own{advice}"
        )
