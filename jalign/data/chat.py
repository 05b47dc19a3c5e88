"""Chat templates: messages become a prompt text and response texts, with what is scored kept apart.

A response is cut into segments (text, scored). Segments are tokenised one by one, so that no token
ever reaches over the border between what is scored and what is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jinja2
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from jalign.data.kinds import nearest
from jalign.data.records import Message

Segment = tuple[str, bool]

TEMPLATES = {
    # Anthropic's HH-RLHF; a system message stands before the first turn. Its line breaks are inside
    # expressions, as Jinja removes those that follow a block.
    "hh": r"""{% for m in messages %}{% if m.role == 'assistant' %}
{{- '\n\nAssistant: ' + m.content }}
{%- elif m.role == 'system' %}{{ m.content }}{% else %}{{ '\n\nHuman: ' + m.content }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}""",
}
"""Plain templates for tokenizers without one: no special tokens, the EOS follows the last turn."""

TURNS = ("last", "all")
_PROBE = "PROBE"


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
    """

    tokenizer: PreTrainedTokenizerBase
    source: str
    marked: bool
    end_of_turn: str | None
    tail: str
    leads_with_bos: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, template: str | None = None) -> Template:
        """The tokenizer's own template, or one that `template_source` finds.

        Raises:
          ValueError: as `template_source`, or a template that refuses a plain chat.
        """
        source = template_source(tokenizer, template)
        marked = bool(re.search(r"\{%-?\s*generation\s*-?%\}", source))
        probe = cls(tokenizer, source, marked, None, "", False)
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]
        text = probe.render([*turn, *turn])
        after = text.rpartition(_PROBE)[2]
        special = sorted(cast(Any, tokenizer).get_added_vocab(), key=len, reverse=True)
        end = next((t for t in special if after.lstrip().startswith(t)), None)
        bos = cast("str | None", tokenizer.bos_token)
        leads = bool(bos) and text.startswith(bos) and text.count(bos) == 1
        return cls(tokenizer, source, marked, end, "" if end else after, leads)

    def render(
        self, messages: Sequence[Message], tools: list[Any] | None = None, open_turn: bool = False
    ) -> str:
        """The text of a conversation; `open_turn` adds what an assistant turn starts with."""
        return self._render(messages, tools, open_turn, marks=False)[0]

    def split(
        self,
        prompt: Sequence[Message],
        response: Sequence[Message],
        *,
        turns: str = "last",
        tools: list[Any] | None = None,
    ) -> tuple[str, list[Segment]]:
        """Text of the prompt and segments of the response, whose assistant turns are scored.

        What follows the last assistant turn is left out. A turn includes its end-of-turn token.

        Args:
          prompt: messages before the response; assistant turns among them are never scored.
          response: messages; the first is an assistant turn.
          turns: "last": only the last assistant turn is scored; "all": every one in `response`.

        Raises:
          ValueError: a response without an assistant turn, or a template that renders the start of
            a conversation in another way once it goes on.
        """
        said = [i for i, m in enumerate(response) if m["role"] == "assistant"]
        if not said:
            raise ValueError("the response has no assistant turn")
        conversation = [*prompt, *response[: said[-1] + 1]]
        if self.marked:
            text, spans = self._render(conversation, tools, False, marks=True)
            before = sum(m["role"] == "assistant" for m in prompt)
            spans = [(a, self._close(text, b)) for a, b in spans[before:]]
            if len(spans) != len(said):
                raise ValueError(
                    "the chat template does not mark each assistant turn with one generation block"
                )
        else:
            text = self.render(conversation, tools)
            spans = [self._span(text, conversation, len(prompt) + i, tools) for i in said]
        start = spans[0][0]
        segments: list[Segment] = []
        place = start
        for k, (a, b) in enumerate(spans):
            if a > place:
                segments.append((text[place:a], False))
            segments.append((text[a:b], turns == "all" or k == len(spans) - 1))
            place = b
        return text[:start], segments

    def _span(
        self, text: str, conversation: Sequence[Message], i: int, tools: list[Any] | None
    ) -> tuple[int, int]:
        """Where message i stands in the text, found by rendering the conversation up to it."""
        before = self.render(conversation[:i], tools, open_turn=True)
        until = text if i + 1 == len(conversation) else self.render(conversation[: i + 1], tools)
        if not (text.startswith(before) and text.startswith(until) and until.startswith(before)):
            raise ValueError(
                "the chat template renders the first messages of a conversation in another way "
                "when it goes on, so that what the assistant says cannot be found; mark it with "
                "{% generation %} ... {% endgeneration %} in the template, or set turns to last"
            )
        if self.end_of_turn:
            return len(before), until.rindex(self.end_of_turn) + len(self.end_of_turn)
        return len(before), len(until.removesuffix(self.tail))

    def _close(self, text: str, end: int) -> int:
        """The end of a marked span, moved over the end-of-turn token right after it."""
        if self.end_of_turn and text.startswith(self.end_of_turn, end):
            return end + len(self.end_of_turn)
        return end

    def _render(self, messages, tools, open_turn: bool, *, marks: bool):
        special: dict[str, Any] = dict(self.tokenizer.special_tokens_map)
        try:
            texts, spans = render_jinja_template(
                conversations=[list(messages)],
                tools=tools,
                chat_template=self.source,
                return_assistant_tokens_mask=marks,
                add_generation_prompt=open_turn,
                **special,
            )
        except jinja2.TemplateError as error:
            roles = [m["role"] for m in messages]
            raise ValueError(
                f"the chat template refuses messages of the roles {roles}: {error}"
            ) from error
        return texts[0], cast("list[tuple[int, int]]", spans[0] if marks else [])


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


def template_source(tokenizer: PreTrainedTokenizerBase | None, template: str | None) -> str:
    """The Jinja source of the tokenizer's own template (None), of a built-in one by name, of a
    file that ends in .jinja, or of the source itself.

    Raises:
      ValueError: the tokenizer has none and none was given, no such file, or an unknown name.
    """
    if template is None:
        if tokenizer is None or not tokenizer.chat_template:
            raise ValueError(
                "the data holds messages but the tokenizer has no chat template; set data.template "
                f"to one of {', '.join(TEMPLATES)} or to a .jinja file"
            )
        return tokenizer.get_chat_template()
    if template.endswith(".jinja"):
        if not Path(template).is_file():
            raise ValueError(f"no template file {template}")
        return Path(template).read_text("utf-8")
    if "{{" in template or "{%" in template:
        return template
    if template not in TEMPLATES:
        raise ValueError(
            f"unknown template {template!r}{nearest(template, TEMPLATES)}; there is: "
            f"{', '.join(TEMPLATES)}, or a file that ends in .jinja"
        )
    return TEMPLATES[template]
