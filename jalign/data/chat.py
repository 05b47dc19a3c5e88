"""Chat templates: render messages to a prompt text and response segments, scored or not.

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
from typing import TYPE_CHECKING, Any, cast

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from jalign.data.records import Message
from jalign.data.templates import template_source
from jalign.data.tokenizers import load_tokenizer as load_tokenizer
from jalign.data.turns import Segment, Span, split

if TYPE_CHECKING:
    from jalign.data.messages import Tools

TURNS = ("last", "all")
_PROBE, _KEY = "PROBE", "KEY"
_TURN = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
_FUNCTION = {"name": "a", "description": "a", "parameters": {"type": "object", "properties": {}}}
_TOOL = {"type": "function", "function": _FUNCTION}


def ends_of(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens that end a response: the EOS, and the end of turn of the chat template,
    with which training ends the responses of a chat.
    """
    ends: set[int | None] = {cast(Any, tokenizer).eos_token_id}
    if tokenizer.chat_template:
        with suppress(ValueError):  # a template that refuses a plain chat is an error where one is
            end = Template.of(tokenizer).end_of_turn
            ends.add(cast(Any, tokenizer.convert_tokens_to_ids(end)) if end else None)
    return frozenset(i for i in ends if i is not None)


@dataclass(frozen=True)
class Template:
    """A chat template and its properties, found by rendering a probe.

    Attributes:
      tokenizer: gives the special tokens the template may name.
      source: the Jinja source.
      marked: the template marks assistant text with `{% generation %}`.
      end_of_turn: the special token that closes an assistant turn, or None.
      tail: text after an assistant turn if no special token closes it.
      leads_with_bos: rendered text starts with the BOS token and has no other.
      tool_source: that of the template for conversations with tools, where the tokenizer has one.
      notes: warnings about the rendered conversations, one sentence each.
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
        # A tokenizer may name several templates, one for tools; the user's template serves all.
        named = tokenizer.chat_template if template is None else None
        tools = named.get("tool_use") if isinstance(named, dict) else None
        return cls._probed(tokenizer, template_source(tokenizer, template), tools)

    @cached_property
    def tool_use(self) -> Template | None:
        """The template for conversations with tools, where the tokenizer has one by that name."""
        if self.tool_source is None:
            return None
        template = self._probed(self.tokenizer, self.tool_source, tools=[_TOOL])
        # One set of notes for both: warnings are read from the template that the data named.
        return replace(template, notes=self.notes)

    def used_with(self, tools: Tools | None) -> Template:
        """This template, or that for conversations with tools."""
        return self.tool_use if tools and self.tool_use else self

    @classmethod
    def _probed(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        source: str,
        tool_source: str | None = None,
        tools: Tools | None = None,
    ) -> Template:
        marked = bool(re.search(r"\{%-?\s*generation\s*-?%\}", source))
        probe = cls(tokenizer, source, marked, None, "", False)
        text = probe.rendered([*_TURN, *_TURN], tools)[0]
        around = text.split(_PROBE)
        if len(around) < 2:
            raise ValueError("the chat template does not render what the assistant says")
        bos = cast("str | None", tokenizer.bos_token)
        added = set(cast(Any, tokenizer).get_added_vocab())
        if bos and bos != tokenizer.eos_token:
            added.discard(bos)  # it begins what follows
        special = sorted(added, key=len, reverse=True)
        tokens = "|".join(map(re.escape, special)) or r"(?!)"
        # What follows a turn may depend on whether another follows; the end is what they share.
        pairs = zip(around[-2] if len(around) > 2 else around[-1], around[-1], strict=False)
        shared = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        ends = re.match(rf"\s*((?:{tokens})*)", shared)
        closing = ends.group(1) if ends else ""
        closing = closing or "".join(re.findall(rf"\A\s*({tokens})", around[-1])[:1])
        end = re.findall(tokens, closing)[-1] if closing else None
        # Once: templates such as Llama 2's repeat the BOS in every turn, which leads nothing.
        leads = bool(bos) and text.startswith(bos) and text.count(bos) == 1
        return cls(tokenizer, source, marked, end, "" if end else around[-1], leads, tool_source)

    def render(
        self, messages: Sequence[Message], tools: Tools | None = None, open_turn: bool = False
    ) -> str:
        """The text of a conversation; `open_turn` adds the header of an assistant turn, or leaves
        the last turn open if it is the assistant's.
        """
        used = self.used_with(tools)
        last = messages[-1]["role"] if messages else ""
        if open_turn and last == "assistant":
            return used.rendered(messages, tools, continue_final_message=True)[0]
        return used.rendered(messages, tools, add_generation_prompt=open_turn)[0]

    def split(
        self,
        prompt: Sequence[Message],
        response: Sequence[Message],
        *,
        turns: str = "last",
        tools: Tools | None = None,
        continues: bool = False,
    ) -> tuple[str, list[Segment]]:
        """Text of the prompt and segments of the response, whose assistant turns are scored.

        What follows the last assistant turn is left out. A turn includes its end-of-turn token.

        Args:
          prompt: messages before the response; assistant turns among them are never scored.
          response: messages; the first is an assistant turn.
          turns: "last": only the last assistant turn is scored; "all": every one in `response`.
            One with `train: False` never is.
          continues: the prompt ends with an assistant message that the response continues.

        Raises:
          ValueError: a response without an assistant turn, or a template that changes earlier
            turns when the conversation continues.
        """
        return split(self.used_with(tools), prompt, response, turns, tools, continues)

    @cached_property
    def header(self) -> str:
        """Text that opens an assistant turn."""
        closed = self.rendered(_TURN[:1], None)[0]
        return self.rendered(_TURN[:1], None, add_generation_prompt=True)[0].removeprefix(closed)

    @cached_property
    def _joins_arguments(self) -> bool:
        """Whether the template writes the arguments of tool calls as text, not as JSON."""
        function = {"name": "a", "arguments": {_KEY: "a"}}
        # Nine characters: Mistral's templates refuse a call id of any other length.
        call = {"type": "function", "id": "call00001", "function": function}
        chat = [_TURN[0], {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            text = self._jinja(chat, [_TOOL])[0]
        except TypeError:
            return True
        except Exception:  # it refuses such a chat; real data raises its own error
            return False
        return f"'{_KEY}'" in text  # a dict as Python shows it

    def _for_template(self, message: Message) -> Message:
        # `train` is our mark; a template may print every key of a message.
        message = {name: value for name, value in message.items() if name != "train"}
        if message.get("tool_calls") and self._joins_arguments:
            message["tool_calls"] = [_with_text(call) for call in message["tool_calls"]]
        return message

    def rendered(
        self, messages: Sequence[Message], tools: Tools | None, **options: bool
    ) -> tuple[str, list[Span]]:
        """The text and its marked spans; `options` are those of transformers."""
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


def _with_text(call: Any) -> Any:
    """A tool call whose arguments are JSON text."""
    function = call.get("function", call)
    if isinstance(function.get("arguments"), str):
        return call
    text = json.dumps(function.get("arguments") or {}, ensure_ascii=False)
    function = {**function, "arguments": text}
    return {**call, "function": function} if "function" in call else function
