import doctest

import pytest

pytest.importorskip("vaderSentiment")

from jalign.rewards import answers, options, rating, rules, template
from jalign.rewards.instructions import ifbench, ifeval
from jalign.rewards.rules import RULES, sentiment


def ask(name, responses, **more):
    return RULES[name](["?"] * len(responses), responses, **more)


def test_sentiment_is_vaders_compound_score():
    # "good" has valence 1.9 in the lexicon, and compound = s / sqrt(s^2 + 15)
    assert sentiment(["good"]) == [pytest.approx(1.9 / (1.9**2 + 15) ** 0.5, abs=1e-4)]


def test_sentiment_orders_texts_and_an_empty_one_is_neutral():
    sad, empty, happy = sentiment(["She was sad and cried.", "", "She loved her happy friend."])
    assert -1 <= sad < empty == 0.0 < happy <= 1


def test_sentiment_of_no_texts_is_no_scores():
    assert sentiment([]) == []


def test_the_sentiment_reward_is_that_of_the_response_alone():
    texts = ["a good day", "a bad day"]
    assert rules.sentiment_reward(["awful"] * 2, texts) == sentiment(texts)


def test_exact_match_compares_final_answers_and_has_no_opinion_without_one():
    responses = ["It is (B)", r"\boxed{(B)}", "first\n####  (B) ", "(B)", "(b)", "(B)"]
    answer = ["(B)", "(B)", "why\n#### (B)", " (B)\n", "(B)", None]
    assert ask("exact_match", responses, answer=answer) == [0.0, 1.0, 1.0, 1.0, 0.0, None]
    assert ask("exact_match", ["a  b\nc", "4"], answer=["a b c", 4]) == [1.0, 1.0]


def test_numeric_match_compares_numbers_not_their_spelling():
    responses = ["so 0.50", "1,000 of them", "it is 25%", "-3", "many", "1", "2"]
    answer = ["1/2", "#### 1000", "25", 3, "4", "none", None]
    found = [1.0, 1.0, 1.0, 0.0, 0.0, None, None]
    assert ask("numeric_match", responses, answer=answer) == found


def test_the_tolerance_of_numeric_match_is_a_share_of_the_answer():
    responses, answer = ["99", "101", "102.1", "-99", "0.1"], [100, 100, 100, -100, 0]
    assert ask("numeric_match", responses, answer=answer) == [0.0] * 5
    found = ask("numeric_match", responses, answer=answer, tolerance=0.02)
    assert found == [1.0, 1.0, 0.0, 1.0, 0.0]


def test_a_format_begins_where_the_prompt_opens_it():
    """As many chat templates write <think> before the reply; chat prompts are known without it."""
    response = "2</think> <answer>4</answer>"
    read, said = ["hi<|im_end|><think>\n"] * 2, [response, "no format"]
    assert RULES["format_match"](["hi"] * 2, said, policy_prompt=read) == [1.0, 0.0]
    assert RULES["format_match"](["hi <think>\n"] * 2, said) == [1.0, 0.0]
    assert RULES["format_match"](["hi"] * 2, said) == [0.0, 0.0]
    assert RULES["format_match"](["<b>bold</b>"], [response]) == [0.0]
    assert RULES["format_match"](["<think>"], [f"<think>{response}"]) == [1.0]  # once more


def test_format_match_is_about_the_whole_response():
    good = "<think>a\nb</think>\n<answer>4</answer>"
    assert ask("format_match", [good, f" {good}\n", f"{good} so", "4"]) == [1.0, 1.0, 0.0, 0.0]
    assert ask("format_match", ["12", "1x"], pattern=r"\d+") == [1.0, 0.0]


def test_lengths_are_words():
    assert ask("response_length_words", ["one two  three\nfour", ""]) == [4.0, 0.0]
    found = ask("length_target", ["a b c d", "a b c", "", "a " * 50], target=4)
    assert found == [0.0, -0.25, -1.0, -1.0]


def test_repetition_is_the_share_of_n_grams_that_were_there_before():
    # a b a, b a b, a b a, b a b: two of four are new
    assert ask("repetition", ["a b a b a b", "a b c", "a b", ""]) == [-0.5, 0.0, 0.0, 0.0]
    assert ask("repetition", ["a a a a"], n=1) == [-0.75]


def test_soft_over_long_falls_in_the_buffer_and_counts_the_tokens_it_is_given():
    tokens = [0, 12, 13, 18, 20, 21, 900]
    found = ask("soft_over_long", ["x"] * 7, response_tokens=tokens, max_length=20, buffer=8)
    assert found == [0.0, 0.0, -0.125, -0.75, -1.0, -1.0, -1.0]
    at = [16384, 16384 + 1024, 20480]
    assert ask("soft_over_long", ["x"] * 3, response_tokens=at) == [0.0, -0.25, -1.0]


@pytest.mark.parametrize(
    "name, wrong",
    [("repetition", {"n": 0}), ("length_target", {"target": 0}), ("format_match", {"pattern": "("}),
     ("numeric_match", {"tolerance": -1.0, "answer": []}),
     ("soft_over_long", {"buffer": 9, "max_length": 8, "response_tokens": []})],
)  # fmt: skip
def test_an_option_out_of_range_is_an_error_even_for_no_responses(name, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RULES[name]([], [], **wrong)


def test_rules_give_one_finite_number_per_response_in_their_range():
    odd = ["", " ", "\n", "\x00", "a" * 5000, "<think>", "1/0", "\u0661", "\\boxed{", "{prompt}"]
    # those that need a library are in test_instructions.py
    for name, rule in RULES.items() - {("ifeval", ifeval), ("ifbench", ifbench)}:
        more = {"answer": ["1"] * 10} if "match" in name and name != "format_match" else {}
        more |= {"response_tokens": [5] * 10} if name == "soft_over_long" else {}
        found = rule(["?"] * 10, odd, **more)
        assert len(found) == 10
        assert all(isinstance(x, float) and abs(x) <= 5000 for x in found), name


@pytest.mark.parametrize("module", [answers, options, rating, rules, template])
def test_the_examples_in_the_docstrings_are_right(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
