"""The text of a response while its tokens arrive."""

import pytest

from jalign.serve.text import ResponseText


class Bytes:
    """A tokenizer whose tokens are bytes; 0 is an EOS without a text."""

    def decode(self, token_ids, skip_special_tokens):
        return bytes(i for i in token_ids if i or not skip_special_tokens).decode(errors="replace")


def pieces(text, size, stops=(), ends=(0,)):
    """What each call returns, for tokens that arrive `size` at a time."""
    tokens, response = list(text.encode()), ResponseText(Bytes(), [*b"before "], ends, stops)
    out = []
    for start in range(0, len(tokens), size):
        out.append(response.add(tokens[start : start + size], start + size >= len(tokens)))
        if out[-1][1] is not None:
            break
    return out


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_pieces_add_up_and_no_character_is_cut(size):
    text = "naïve 🙂 日本"
    out = [new for new, _ in pieces(text, size)]
    assert "".join(out) == text
    assert not any("\ufffd" in new for new in out)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 100])
def test_a_stop_string_ends_the_text_wherever_the_pieces_are_cut(size):
    out = pieces("one\n\nHuman: two", size, stops=("\n\nHuman:", "three"))
    assert "".join(new for new, _ in out) == "one"
    kept = (len(out) - 1) * size + out[-1][1]
    assert kept == len("one\n\nHuman:"), "tokens up to the one that completes it"


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_none():
    out = [new for new, _ in pieces("a end. ending", 1, stops=("enough",))]
    assert "".join(out) == "a end. ending"
    assert out[2:8] == ["", "", "end", ".", " ", ""]


def test_of_two_stop_strings_the_first_in_the_text_counts():
    assert pieces("a. b! c", 100, stops=("!", "."))[0][0] == "a"


def test_an_eos_has_no_text():
    assert pieces("end\0", 2) == [("en", None), ("d", None)]


def test_an_unfinished_character_at_the_end_is_shown():
    response = ResponseText(Bytes(), [])
    assert response.add([*b"a", 0xF0], False) == ("a", None)
    assert response.add([0x9F], True) == ("\ufffd", None)
