"""Chat templates: messages become a prompt text and response texts, with what is scored kept apart.

A response is cut into segments (text, scored), and prompt and segments together are the text that
the template renders, up to the end of the last assistant turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from jalign.data.kinds import nearest
from jalign.data.records import Message
from jalign.data.templates import template_source

Segment = tuple[str, bool]
Span = tuple[int, int]

TURNS = ("last", "all")
_PROBE, _KEY = "PROBE", "KEY"
_TURN = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
_FUNCTION = {"name": "a", "description": "a", "parameters": {"type": "object", "properties": {}}}
_TOOL = {"type": "function", "function": _FUNCTION}


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder, or of a name on the hub. Code that comes with it is never run.

    Raises:
      ValueError: no such folder, a folder without tokenizer.json, one that asks for its own code,
        or a tokenizer without a fast implementation.
    """
    folder = Path(path).expanduser()
    local = folder.is_dir()
    if not local and (str(path).startswith((".", "/", "~")) or str(path).count("/") > 1):
        siblings = [p.name for p in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise ValueError(f"no tokenizer folder {path}{nearest(folder.name, siblings)}")
    for name in ("tokenizer_config.json", "config.json") if local else ():
        file = folder / name
        if file.exists() and "auto_map" in (config := json.loads(file.read_text("utf-8"))):
            raise ValueError(
                f"{file} asks to run its own code ({config['auto_map']}); jalign never does"
            )
    if local and not (folder / "tokenizer.json").exists():
        raise ValueError(
            f"{folder} has no tokenizer.json; save the tokenizer in the fast format first"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder if local else path), trust_remote_code=False
        )
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} is neither a folder with a tokenizer here nor a model that the hub "
            f"could give now: {error}"
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(f"the tokenizer of {path} has no fast implementation")
    return tokenizer


def ends_of(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens that end a response: the EOS, and the end of turn of the chat template,
    with which training ends the responses of a chat.
    """
    ends = {cast(Any, tokenizer).eos_token_id}
    if tokenizer.chat_template:
        with suppress(ValueError):  # a template that refuses a plain chat is an error where one is
            end = Template.of(tokenizer).end_of_turn
            ends.add(cast(Any, tokenizer.convert_tokens_to_ids(end)) if end else None)
    return frozenset(ends - {None})


@dataclass(frozen=True)
class Template:
    """A chat template and what a probe says about it.

    Attributes:
      tokenizer: gives the special tokens the template may name.
      source: the Jinja source.
      marked: the template marks what the assistant says with `{% generation %}`.
      end_of_turn: the special token with which it closes an assistant turn; None when it does not.
      tail: what it writes after an assistant turn that it does not close.
      leads_with_bos: what it renders starts with the BOS token, once.
      tool_source: that of the template for conversations with tools, where the tokenizer has one.
      notes: what a person should know of the conversations that were rendered, in sentences.
    """

    tokenizer: PreTrainedTokenizerBase
    source: str
    marked: bool
    end_of_turn: str | None
    tail: str
    leads_with_bos: bool
    tool_source: str | None = None
    notes: set[str] = field(default_factory=set, compare=False)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> Template:
        """The tokenizer's own template, or one that `template_source` finds.

        Raises:
          ValueError: as `template_source`, or a template that refuses a plain chat.
        """
        named = tokenizer.chat_template if template is None else None
        tools = named.get("tool_use") if isinstance(named, dict) else None
        return cls._probed(tokenizer, template_source(tokenizer, template), tools)

    @cached_property
    def tool_use(self) -> Template | None:
        """The template for conversations with tools, where the tokenizer has one by that name."""
        if self.tool_source is None:
            return None
        return replace(
            self._probed(self.tokenizer, self.tool_source, tools=[_TOOL]), notes=self.notes
        )

    @classmethod
    def _probed(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        source: str,
        tool_source: str | None = None,
        tools: list[Any] | None = None,
    ) -> Template:
        marked = bool(re.search(r"\{%-?\s*generation\s*-?%\}", source))
        probe = cls(tokenizer, source, marked, None, "", False)
        text = probe._render([*_TURN, *_TURN], tools)[0]
        said = text.split(_PROBE)
        if len(said) < 2:
            raise ValueError("the chat template does not render what the assistant says")
        bos = cast("str | None", tokenizer.bos_token)
        added = set(cast(Any, tokenizer).get_added_vocab())
        added -= {bos} - {tokenizer.eos_token}  # it begins what follows
        special = sorted(added, key=len, reverse=True)
        tokens = "|".join(map(re.escape, special)) or r"(?!)"
        # What follows a turn may depend on whether another follows; the end is what they share.
        pairs = zip(said[-2] if len(said) > 2 else said[-1], said[-1], strict=False)
        shared = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        ends = re.match(rf"\s*((?:{tokens})*)", shared)
        closing = ends.group(1) if ends else ""
        closing = closing or "".join(re.findall(rf"\A\s*({tokens})", said[-1])[:1])
        end = re.findall(tokens, closing)[-1] if closing else None
        leads = bool(bos) and text.startswith(bos) and text.count(bos) == 1
        return cls(tokenizer, source, marked, end, "" if end else said[-1], leads, tool_source)

    def render(
        self, messages: Sequence[Message], tools: list[Any] | None = None, open_turn: bool = False
    ) -> str:
        """The text of a conversation; `open_turn` adds what an assistant turn starts with, or
        leaves the last turn open where it is the assistant's.
        """
        if tools and self.tool_use:
            return self.tool_use.render(messages, tools, open_turn)
        last = messages[-1]["role"] if messages else ""
        if open_turn and last == "assistant":
            return self._render(messages, tools, continue_final_message=True)[0]
        return self._render(messages, tools, add_generation_prompt=open_turn)[0]

    def split(
        self,
        prompt: Sequence[Message],
        response: Sequence[Message],
        *,
        turns: str = "last",
        tools: list[Any] | None = None,
        continues: bool = False,
    ) -> tuple[str, list[Segment]]:
        """Text of the prompt and segments of the response, whose assistant turns are scored.

        What follows the last assistant turn is left out. A turn includes its end-of-turn token.

        Args:
          prompt: messages before the response; assistant turns among them are never scored.
          response: messages; the first is an assistant turn.
          turns: "last": only the last assistant turn is scored; "all": every one in `response`.
            One with `train: False` never is.
          continues: the prompt ends with an assistant message, and the response goes on with it.

        Raises:
          ValueError: a response without an assistant turn, or a template that renders the start of
            a conversation in another way once it goes on.
        """
        if tools and self.tool_use:
            more = {"turns": turns, "tools": tools, "continues": continues}
            return self.tool_use.split(prompt, response, **more)
        said = [i for i, m in enumerate(response) if m["role"] == "assistant"]
        if not said:
            raise ValueError("the response has no assistant turn")
        response = [self._without_end(m) for m in response[: said[-1] + 1]]
        begun = ""
        if continues and said[0] == 0:
            begun = self.render(prompt, tools, open_turn=True)
            prompt, response = prompt[:-1], [joined(prompt[-1], response[0]), *response[1:]]
        conversation = [*prompt, *response]
        at = [len(prompt) + i for i in said]
        if self.marked:
            text, marks = self._render(conversation, tools, return_assistant_tokens_mask=True)
            groups = self._by_turn(text, marks, conversation, at, tools)
        else:
            text = self._render(conversation, tools)[0]
            try:
                groups = [[self._span(text, conversation, i, tools)] for i in at]
            except _Rewritten:
                alone = not begun and len(conversation) == at[0] + 1
                own = self._own_words(conversation, tools) if alone else None
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
        learnt = [
            response[i].get("train") is not False and (turns == "all" or i == said[-1])
            for i in said
        ]
        spans = [(a, b, scored) for g, scored in zip(groups, learnt, strict=True) for a, b in g]
        start = place = spans[0][0]
        segments: list[Segment] = []
        for a, b, scored in spans:
            if a > place:
                segments.append((text[place:a], False))
            segments.append((text[a:b], scored))
            place = b
        return text[:start], segments

    def _without_end(self, message: Message) -> Message:
        """An assistant message whose text does not bring its own end of turn."""
        text = message["content"].rstrip() if message["role"] == "assistant" else ""
        ends = tuple(t for t in (self.end_of_turn, self.tokenizer.eos_token) if t)
        if not text.endswith(ends):
            return message
        while text.endswith(ends):
            text = text.removesuffix(next(t for t in ends if text.endswith(t))).rstrip()
        return {**message, "content": text}

    def _span(
        self, text: str, conversation: Sequence[Message], i: int, tools: list[Any] | None
    ) -> Span:
        """Where message i stands in the text, up to its end of turn."""
        start = self._start(text, conversation, i, tools)
        last = i + 1 == len(conversation)
        until = text if last else self._render(conversation[: i + 1], tools)[0]
        end = len(until.removesuffix(self.tail)) if self.tail else len(until)
        if self.end_of_turn and (at := until.rfind(self.end_of_turn, start)) >= 0:
            end = at + len(self.end_of_turn)
        # what stands behind a turn may depend on whether another follows, as Phi-3's EOS does
        if not text.startswith(until[:end]):
            raise _Rewritten
        return start, end

    def _start(
        self, text: str, conversation: Sequence[Message], i: int, tools: list[Any] | None
    ) -> int:
        """Where the text of assistant message i begins, behind what opens the turn."""
        earlier, before = conversation[:i], None
        with suppress(ValueError):
            before = self._render(earlier, tools, add_generation_prompt=True)[0]
        if before is not None and text.startswith(before):
            return len(before)
        if not any(m["role"] == "user" for m in earlier):  # templates refuse to open such a chat
            mark = self._header or conversation[i]["content"].strip()
            if mark and (at := text.find(mark)) >= 0:
                return at + len(self._header)
        raise _Rewritten

    @cached_property
    def _header(self) -> str:
        """What opens an assistant turn."""
        closed = self._render(_TURN[:1], None)[0]
        return self._render(_TURN[:1], None, add_generation_prompt=True)[0].removeprefix(closed)

    def _own_words(
        self, conversation: Sequence[Message], tools: list[Any] | None
    ) -> tuple[str, list[Segment]] | None:
        """The last message as the model has to write it behind the prompt's open turn, for
        templates that render it otherwise: those of reasoning models open the thoughts, and leave
        them out of what was said.
        """
        *prompt, message = conversation
        if message.get("tool_calls") or not prompt:
            return None
        text, said = self.render(prompt, tools, open_turn=True), message["content"]
        thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
        if text.rstrip().endswith("<think>"):
            if "</think>" in said:
                said = said.lstrip().removeprefix("<think>").lstrip("\n")
            else:
                said = f"{thoughts.strip()}\n</think>\n\n{said.lstrip()}"
        elif thoughts:
            return None
        self.notes.add(
            "the chat template renders a last answer in another way than its own prompt asks for "
            "it: responses are the text of the messages"
        )
        scored = message.get("train") is not False
        return text, [(said + (self.end_of_turn or ""), scored)]

    def _by_turn(
        self,
        text: str,
        marks: list[Span],
        conversation: Sequence[Message],
        at: list[int],
        tools: list[Any] | None,
    ) -> list[list[Span]]:
        """The marked spans of each assistant turn in `at`, each up to its end of turn."""
        turns = [i for i, m in enumerate(conversation) if m["role"] == "assistant"]
        if len(marks) == len(turns):
            groups = [[mark] for mark in marks][-len(at) :]
        else:  # several in a turn, as when the end is a block of its own
            starts = [self._start(text, conversation, i, tools) for i in at]
            groups = [
                [m for m in marks if a <= m[0] < b]
                for a, b in zip(starts, [*starts[1:], len(text)], strict=True)
            ]
        if not all(groups):
            raise ValueError(
                "the chat template marks no text of some assistant turns with {% generation %}"
            )
        return [self._closed(text, group) for group in groups]

    def _closed(self, text: str, spans: list[Span]) -> list[Span]:
        """The spans of a turn up to its end of turn, which may stand in one or right behind."""
        end = self.end_of_turn
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

    @cached_property
    def _joins_arguments(self) -> bool:
        """Whether the template writes the arguments of tool calls as text, not as JSON."""
        function = {"name": "a", "arguments": {_KEY: "a"}}
        call = {"type": "function", "id": "call00001", "function": function}
        chat = [_TURN[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            text = self._jinja(chat, [_TOOL])[0]
        except TypeError:
            return True
        except Exception:  # it refuses such a chat, for which data has its own error
            return False
        return f"'{_KEY}'" in text  # a dict as Python shows it

    def _for_template(self, message: Message) -> Message:
        message = {name: value for name, value in message.items() if name != "train"}
        if message.get("tool_calls") and self._joins_arguments:
            message["tool_calls"] = [_with_text(call) for call in message["tool_calls"]]
        return message

    def _render(self, messages, tools: list[Any] | None, **options: Any):
        try:
            return self._jinja([self._for_template(m) for m in messages], tools, **options)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            roles = [m["role"] for m in messages]
            raise ValueError(
                f"the chat template refuses messages of the roles {roles}: {error}"
            ) from error

    def _jinja(self, messages, tools, **options: Any) -> tuple[str, list[Span]]:
        special: dict[str, Any] = dict(self.tokenizer.special_tokens_map)
        texts, spans = render_jinja_template(
            conversations=[list(messages)],
            tools=tools,
            chat_template=self.source,
            **options,
            **special,
        )
        return texts[0], cast("list[Span]", spans[0] if spans else [])


def joined(first: Message, then: Message) -> Message:
    """Two messages of one turn as one."""
    return {**then, "content": first["content"] + then["content"]}


class _Rewritten(ValueError):
    """A template that rewrites what was said before."""

    def __init__(self, turns: str = "last"):
        advice = ", or set data.turns to last" if turns == "all" else ""
        super().__init__(
            "the chat template renders the first messages of a conversation in another way when it "
            "goes on, so that what the assistant says cannot be found in it; mark it with "
            f"{{% generation %}} ... {{% endgeneration %}} in a data.template of your own{advice}"
        )


def _with_text(call: Any) -> Any:
    """A tool call whose arguments are JSON text."""
    function = call.get("function", call)
    if isinstance(function.get("arguments"), str):
        return call
    text = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    function = {**function, "arguments": text}
    return {**call, "function": function} if "function" in call else function
