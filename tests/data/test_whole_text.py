"""Prompt and response ids are those of the text that inference gives a model, for every layout."""

import pytest
from tiny_tokenizers import byte_level, sentence_piece
from tokenizers import AddedToken

from jalign.data.convert import to_records
from jalign.data.templates import TEMPLATES
from jalign.data.tokenize import tokenize

OPEN = "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
LAYOUTS = {
    "chatml": TEMPLATES["chatml"],
    "zephyr": TEMPLATES["zephyr"],
    "gemma": TEMPLATES["gemma"],
    "llama3": TEMPLATES["llama3"],
    "phi3": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}"
    "{% endfor %}" + OPEN,
    "phi3, EOS at the end": "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + "
    "'<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}"
    "{{ eos_token }}{% endif %}",
    "mistral": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}"
    "{% endif %}{% endfor %}",
    "mistral v3": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '[INST]' + m.content + '[/INST]' }}{% else %}{{ m.content + eos_token }}"
    "{% endif %}{% endfor %}",
    "deepseek": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
    "{{ '<|User|>' + m.content }}{% else %}{{ '<|Assistant|>' + m.content + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}",
    "marked": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>\n' }}"
    "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
}
ADDED = {
    "none": {},
    "added": {"rstrip": False},
    "rstrip": {"rstrip": True},
    "both": {"rstrip": True, "lstrip": True},
}
NAMES = [
    "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|end|>", "<start_of_turn>",
    "<end_of_turn>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]",
    "<|User|>", "<|Assistant|>",
]  # fmt: skip
TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello you"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "So long"},
]
TOKENIZERS = [(name, added) for name in ("bytes", "sentencepiece") for added in ADDED] + [
    ("mistral_v1", "none"), ("mistral_v1", "rstrip"), ("qwen2_5", "none"), ("qwen2_5", "both"),
    ("smollm2", "added"), ("gpt2", "none"),
]  # fmt: skip


def add_tokens(tokenizer, added):
    if ADDED[added]:
        known = [AddedToken(n, normalized=False, special=True, **ADDED[added]) for n in NAMES]
        tokenizer.add_special_tokens({"additional_special_tokens": known})
    return tokenizer


@pytest.fixture(scope="module", params=TOKENIZERS, ids="-".join)
def tokenizer(request, real):
    name, added = request.param
    made = {"bytes": lambda: byte_level(bos=True), "sentencepiece": sentence_piece}
    return add_tokens(made.get(name, lambda: real(name))(), added)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompt_and_response_ids_are_those_of_the_text_that_the_template_writes(tokenizer, layout):
    tokenizer.chat_template = LAYOUTS[layout]
    text = tokenizer.apply_chat_template(TALK, tokenize=False)
    inference = tokenizer(text, add_special_tokens=False)["input_ids"]
    opened = tokenizer.apply_chat_template(TALK[:-1], tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(opened, add_special_tokens=False)["input_ids"]
    for turns in ("last", "all"):
        records, _ = to_records([{"messages": TALK}], "supervised")
        (example,) = tokenize(records, tokenizer, loss_turns=turns)
        ids = [*example.prompt.tolist(), *example.responses[0].tolist()]
        assert "".join(tokenizer.convert_ids_to_tokens(ids)).count("long") == 1
        if ids[-1] == tokenizer.eos_token_id != inference[len(ids) - 1 :][:1]:
            ids = ids[:-1]  # a template whose turns end with text: the EOS is learned instead
        if inference[: len(prompt)] == prompt:  # GPT-2 joins two line breaks at an end only
            assert ids == inference[: len(ids)], turns
    (example,) = tokenize(records, tokenizer)
    assert example.prompt.tolist() == prompt
