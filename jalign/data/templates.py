"""Built-in chat templates, and lookup of a template's source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jalign.data.encoder import default_bos
from jalign.signatures import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATES = {
    # Anthropic's HH-RLHF; a system message stands before the first turn. Its line breaks are inside
    # expressions, as Jinja removes those that follow a block. No special tokens: the EOS follows
    # the last turn.
    "hh": r"""{% for m in messages %}{% if m.role == 'assistant' %}
{{- '\n\nAssistant: ' + m.content }}
{%- elif m.role == 'system' %}{{ m.content }}{% else %}{{ '\n\nHuman: ' + m.content }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}""",
    "chatml": r"""{% for m in messages %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "llama3": r"""{% for m in messages %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim + '<|eot_id|>' }}
{%- endfor %}{% if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    "zephyr": r"""{% for m in messages %}
{{- '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}""",
    # Gemma has no system turn: what would be in it stands before the first message.
    "gemma": r"""{% set system = messages and messages[0].role == 'system' %}
{%- for m in (messages[1:] if system else messages) %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}
{{- messages[0].content | trim + '\n\n' if system and loop.first else '' }}
{{- m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}""",
}
"""Source by name. If the tokenizer adds a BOS by default, these start with it too."""


def template_source(tokenizer: PreTrainedTokenizerBase, template: str | None) -> str:
    """The Jinja source of the tokenizer's own template (None), of a built-in one by name, of a
    file that ends in .jinja, or of the source itself.

    Raises:
      ValueError: the tokenizer has none and none was given, no such file, or an unknown name.
    """
    built_in = ", ".join(TEMPLATES)
    if template is None:
        if not tokenizer.chat_template:
            raise ValueError(
                "the data holds messages but the tokenizer has no chat template; set data.template "
                f"to one of {built_in} or to a .jinja file"
            )
        return tokenizer.get_chat_template()
    if "{{" in template or "{%" in template:
        return template
    if template.endswith(".jinja"):
        file = Path(template).expanduser()
        if not file.is_file():
            siblings = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
            raise ValueError(f"data.template: no file {template}{nearest(file.name, siblings)}")
        return file.read_text("utf-8")
    if template not in TEMPLATES:
        raise ValueError(
            f"data.template: unknown template {template!r}{nearest(template, TEMPLATES)}; there "
            f"is: {built_in}, or a file that ends in .jinja"
        )
    bos = "" if default_bos(tokenizer) is None else "{{ bos_token }}"
    return bos + TEMPLATES[template]
