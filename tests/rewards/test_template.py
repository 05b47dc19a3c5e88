"""Texts for judges: fields are filled once, and none is left out or made up."""

import pytest

from jalign.rewards.template import FOLDER, Template, load


def test_what_a_response_says_is_never_filled_in():
    text = Template("{prompt} | {response}")
    assert (
        text.fill(prompt="{response}", response="{prompt} {{x}}") == "{response} | {prompt} {{x}}"
    )


def test_doubled_braces_are_braces_and_a_line_break_at_the_end_is_none():
    assert Template("{{{a}}}\n").fill(a="1") == "{1}"


@pytest.mark.parametrize("text", ["a\n{", "a\n}", "a\n{Response 1}", "a\n{}", 'a\n{"a": 1}'])
def test_a_brace_that_is_no_field_is_an_error_with_its_line(text):
    with pytest.raises(ValueError, match="mine, line 2: a brace that is no"):
        Template(text, "mine")


def test_fields_and_values_must_be_the_same():
    text = Template("{prompt}", "mine")
    with pytest.raises(ValueError, match=r"mine needs \{prompt\}; did you mean 'prompts'"):
        text.fill(prompts="a")
    with pytest.raises(ValueError, match=r"mine has no field \{promt\}; did you mean 'prompt'"):
        text.fill(prompt="a", promt="b")
    with pytest.raises(TypeError, match="mine: prompt must be text, got None"):
        text.fill(prompt=None)


def test_an_unknown_field_and_a_missing_one_are_errors_when_a_template_is_loaded(tmp_path):
    (tmp_path / "mine.txt").write_text("{prompt} {reponse}")
    with pytest.raises(ValueError, match=r"unknown field \{reponse\}; did you mean 'response'"):
        load(tmp_path / "mine.txt", ("prompt", "response"))
    with pytest.raises(ValueError, match=r"must have the fields \{response_2\}"):
        load("rate", ("prompt", "response", "response_2"), ("low", "high"))
    assert load(tmp_path / "mine.txt", ("prompt",), ("reponse",)).fields == {"prompt", "reponse"}


def test_a_template_that_is_not_there_is_an_error_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="no template 'additiv'; did you mean 'additive'"):
        load("additiv")
    (tmp_path / "mine.txt").write_text("a")
    with pytest.raises(ValueError, match=r"no template file .*; did you mean 'mine.txt'"):
        load(tmp_path / "mind.txt")


def test_templates_that_ship_end_where_the_answer_begins():
    names = sorted(path.stem for path in FOLDER.glob("*.txt"))
    assert len(names) == 14
    for name in names:
        text = load(name, (), KNOWN).text
        assert text.strip() == text and text.isascii(), name


KNOWN = (
    "prompt", "response", "response_1", "response_2", "low", "high", "request", "critique",
    "principle", "thoughts", "examples", "number", "question",
)  # fmt: skip
