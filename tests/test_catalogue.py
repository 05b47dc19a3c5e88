"""`jalign algorithms` can be read at 80 columns and by grep, and knows what people look for."""

import pytest

from jalign.algorithms import ALGORITHMS
from tests._cli import call


@pytest.fixture
def said(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    return lambda *args: call(["algorithms", *args], capsys)[1]


def test_every_algorithm_is_one_line_of_at_most_80_columns_with_its_whole_name(said):
    lines = said().out.splitlines()
    assert max(map(len, lines)) <= 80
    first = [line.split()[0] for line in lines if line]
    assert all(first.count(name) == 1 for name in ALGORITHMS)
    (line,) = [x for x in lines if x.startswith("simpo ")]
    assert line.split() == ["simpo", "pair", "implicit", "response", "no", "2405.14734", "length"]


def test_one_algorithm_is_shown_with_all_its_numbers_and_their_meaning(said):
    text = said("simpo").out
    assert "The mean log-probability per token as the reward" in text
    for words in ("gamma 1.0", "margin the chosen reward must win by", "nll_coef 0.0"):
        assert words in text


def test_words_choose_lines_and_known_names_say_where_they_are(said):
    lines = said("Nash").out.splitlines()
    assert {line.split()[0] for line in lines[1:]} == {
        row.name for row in ALGORITHMS.values() if "nash" in row.tags
    }
    assert "oaif is here: online_dpo" in said("oaif").out
    assert "no algorithm 'simpoo'; did you mean 'simpo'?" in said("simpoo").err
