import json
import shutil

import pytest
from tiny_tokenizers import CHATML, byte_level

from jalign.data.chat import Template, load_tokenizer

USER = {"role": "user", "content": "u"}
ONE, TWO = ({"role": "assistant", "content": c} for c in "ab")
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As reasoning models do: what was thought is shown in the last turn only.
FORGETS = CHATML.replace(
    "{{ m.content }}",
    "{% if loop.last and m.role == 'assistant' %}<think>{% endif %}{{ m.content }}",
)


@pytest.mark.parametrize("source", [CHATML, MARKED])
def test_prompt_and_turns_are_told_apart_with_and_without_generation_marks(source):
    template = Template.of(byte_level(chat_template=source))
    assert template.marked == (source is MARKED) and template.end_of_turn == "<|im_end|>"
    prompt, segments = template.split([USER], [ONE, USER, TWO], turns="all")
    assert prompt == "<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n"
    assert segments == [
        ("a<|im_end|>", True),
        ("\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n", False),
        ("b<|im_end|>", True),
    ]
    scored = [s for _, s in template.split([USER], [ONE, USER, TWO], turns="last")[1]]
    assert scored == [False, False, True]


@pytest.mark.parametrize("source", [CHATML, MARKED])
def test_what_the_assistant_said_in_the_prompt_is_not_part_of_the_response(source):
    template = Template.of(byte_level(chat_template=source))
    prompt, segments = template.split([USER, ONE, USER], [TWO, USER], turns="all")
    assert "a<|im_end|>" in prompt and segments == [("b<|im_end|>", True)]


def test_a_template_that_rewrites_history_is_refused_unless_only_the_last_turn_counts():
    template = Template.of(byte_level(chat_template=FORGETS))
    with pytest.raises(ValueError, match="in another way when it goes on"):
        template.split([USER], [ONE, USER, TWO], turns="all")
    assert template.split([USER, ONE, USER], [TWO])[1] == [("<think>b<|im_end|>", True)]


def test_the_hh_template_writes_human_and_assistant():
    template = Template.of(byte_level(), "hh")
    assert template.end_of_turn is None
    prompt, segments = template.split([USER, ONE, USER], [TWO])
    assert prompt == "\n\nHuman: u\n\nAssistant: a\n\nHuman: u\n\nAssistant:"
    assert segments == [(" b", True)]


def test_a_tokenizer_without_a_template_says_what_to_set(tmp_path):
    with pytest.raises(ValueError, match=r"no chat template; set data\.template to one of hh"):
        Template.of(byte_level())
    with pytest.raises(ValueError, match="unknown template 'hhh'; did you mean 'hh'"):
        Template.of(byte_level(), "hhh")
    with pytest.raises(ValueError, match=r"no file .*none\.jinja"):
        Template.of(byte_level(), str(tmp_path / "none.jinja"))


def test_a_template_of_a_file_may_close_its_turns_with_text(tmp_path):
    path = tmp_path / "plain.jinja"
    path.write_text(
        "{% for m in messages %}### {{ m.role }}: {{ m.content }}\n\n{% endfor %}"
        "{% if add_generation_prompt %}### assistant:{% endif %}"
    )
    _, segments = Template.of(byte_level(), str(path)).split([USER], [ONE])
    assert segments == [(" a", True)]


def test_what_a_template_refuses_is_an_error_with_the_roles():
    source = CHATML.replace(
        "{% for m", "{% if messages[0].role == 'assistant' %}{{ raise_exception('user first') }}"
        "{% endif %}{% for m", 1,
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"refuses messages of the roles \['assistant'\]: user first"
    ):
        Template.of(byte_level(chat_template=source)).render([ONE])


def test_a_response_without_an_assistant_turn_is_refused(chatml):
    with pytest.raises(ValueError, match="no assistant turn"):
        Template.of(chatml).split([], [USER])


def test_a_saved_tokenizer_loads_and_one_that_brings_code_does_not(tmp_path):
    byte_level(chat_template=CHATML).save_pretrained(tmp_path / "tok")
    loaded = load_tokenizer(tmp_path / "tok")
    assert loaded.is_fast and loaded.chat_template == CHATML
    shutil.copytree(tmp_path / "tok", tmp_path / "evil")
    file = tmp_path / "evil" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": "x"}}))
    with pytest.raises(ValueError, match="asks to run its own code"):
        load_tokenizer(tmp_path / "evil")
    with pytest.raises(ValueError, match="did you mean 'tok'"):
        load_tokenizer(tmp_path / "tokk")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path / "empty")
