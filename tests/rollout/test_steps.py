"""Where the steps of a response end, with real tokenizers."""

import doctest
from itertools import pairwise

import numpy as np
import pytest

from jalign.rollout import steps
from jalign.rollout.steps import step_ends
from tests.data.tiny_tokenizers import byte_level, sentence_piece


def cut(tokenizer, text, separator):
    """The texts of the steps of a text."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    borders = [0, *(end + 1 for end in step_ends(tokenizer, np.array(ids), separator))]
    assert borders[-1] == len(ids)
    return [tokenizer.decode(ids[a:b]) for a, b in pairwise(borders)]


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_a_step_ends_with_its_separator_and_the_last_one_with_the_response(make):
    said = cut(make(bos=False), "hello world. how are you. the fox", ".")
    letters = [x.replace(" ", "").replace("\u2581", "") for x in said]
    assert letters == ["helloworld.", "howareyou.", "thefox"]


def test_a_separator_of_several_tokens_ends_the_step_with_its_last_one():
    said = cut(byte_level(), "hello##world##fox", "##")
    assert said == ["hello##", "world##", "fox"]


def test_what_is_blank_belongs_to_the_step_before_it_and_at_the_front_to_the_first():
    tokenizer = byte_level()
    said = cut(tokenizer, "\n\nhello\n\n \nworld\n</s>", "\n")
    assert said == ["\n\nhello\n\n \n", "world\n</s>"]
    assert cut(tokenizer, " \n</s>", "\n") == [" \n</s>"]  # one step of nothing
    assert cut(tokenizer, "hello</s>", "\n") == ["hello</s>"]
    assert step_ends(tokenizer, np.zeros(0, np.int32), "\n") == []


def test_an_empty_separator_is_refused():
    with pytest.raises(ValueError, match="empty separator"):
        step_ends(byte_level(), np.array([5, 6]), "")


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(steps).failed == 0
