"""How probable options are: one that another begins with, tokens a server did not follow."""

import math

import pytest

from jalign.rewards.options import TokenLogprobs, exclusive, from_steps


def logs(*probabilities):
    return [math.log(p) for p in probabilities]


def probs(found):
    return [math.exp(x) for x in found]


def step(text, **listed):
    """A token that was taken out of those listed; _ is a space."""
    logps = {name.replace("_", " ").strip("x"): math.log(p) for name, p in listed.items()}
    taken = logps.pop(text)
    return TokenLogprobs(text, taken, logps)


def test_an_option_has_what_longer_ones_that_go_on_from_it_leave():
    ids = [(1,), (1, 0), (1, 0, 0), (2,)]
    found = exclusive(ids, logs(0.6, 0.25, 0.05, 0.3))
    assert probs(found) == pytest.approx([0.35, 0.2, 0.05, 0.3])
    assert probs(exclusive(ids[:1], logs(0.6))) == pytest.approx([0.6])


def test_options_that_do_not_go_on_keep_their_log_probabilities_however_small():
    assert exclusive([(1,), (2, 3)], [-900.0, -2000.0]) == [-900.0, -2000.0]
    first, second = exclusive([(1,), (1, 0)], [-0.5, -0.5])  # always goes on
    assert first == -math.inf and second == -0.5


def test_alternatives_to_the_only_token_are_the_answer():
    steps = [step("2", x1=0.2, x2=0.7, _1=0.05)]
    found = from_steps(steps, ["1", " 1", "2", " 2"])
    assert probs(found) == pytest.approx([0.2, 0.05, 0.7, 0.05])  # 0.05 is left over for " 2"


def test_what_is_not_listed_gets_no_more_than_the_least_that_is():
    assert probs(from_steps([step("1", x1=0.6, x7=0.001)], ["1", "2"])) == pytest.approx(
        [0.6, 0.001]
    )
    assert probs(from_steps([step("1", x1=0.9, x7=0.06)], ["1", "2"])) == pytest.approx([0.9, 0.04])
    steps = [TokenLogprobs("1", 0.0, {"x": -9999.0})]  # how some servers write no probability
    assert from_steps(steps, ["1", "2"]) == [0.0, -9999.0]
    full = from_steps([TokenLogprobs("1", -1e-12, {"x": -20.0})], ["1", "2"])
    assert full == [pytest.approx(0.0), pytest.approx(math.log(1e-9))]


def test_a_ten_of_two_tokens_is_told_from_a_one_where_the_answer_went_that_way():
    steps = [step("1", x1=0.5, x8=0.3, x9=0.1), step("0", x0=0.8, xE=0.1)]
    found = from_steps(steps, ["1", "8", "9", "10"])
    assert probs(found) == pytest.approx([0.5 * 0.2, 0.3, 0.1, 0.5 * 0.8])
    stopped = from_steps(steps[:1], ["1", "8", "9", "10"])  # it was a 1
    assert probs(stopped)[:3] == pytest.approx([0.5, 0.3, 0.1])


def test_a_ten_of_one_token_takes_nothing_from_a_one():
    steps = [step("8", x1=0.2, x8=0.5, x10=0.25)]
    assert probs(from_steps(steps, ["1", "8", "10"])) == pytest.approx([0.2, 0.5, 0.25])


def test_nobody_knows_what_a_one_is_where_the_answer_went_another_way():
    assert from_steps([step("8", x1=0.2, x8=0.5)], ["1", "8", "10"]) is None
    few = from_steps([step("8", x1=0.002, x8=0.5)], ["1", "8", "10"])
    assert probs(few)[:2] == pytest.approx([0.002, 0.5])  # too little to count


def test_options_of_several_tokens_are_followed_along_the_answer():
    steps = [step("(", **{"(": 0.9, "A": 0.05}), step("B", A=0.25, B=0.5), step(")", **{")": 0.8})]
    found = from_steps(steps, ["(A)", "(B)"])
    assert found is None  # "(A" was not followed: whether it closes, and what else, is not known
    steps[1] = step("B)", **{"A)": 0.25, "B)": 0.5})
    assert probs(from_steps(steps, ["(A)", "(B)"])) == pytest.approx([0.9 * 0.25, 0.9 * 0.5])


def test_an_answer_that_is_none_of_the_options_says_nothing():
    assert from_steps([step("The", The=0.9, A=0.05)], ["1", "2"]) is None
    assert from_steps([], ["1", "2"]) is None
    assert from_steps([TokenLogprobs("x", -0.1, {"1": -9999.0})], ["1", "2"]) is None


def test_options_that_hardly_come_up_are_no_answer():
    """As of a judge that thinks first: what else it might have begun with says nothing."""
    thinks = TokenLogprobs("<think>", -0.001, {"1": -8.0, "2": -9.0})
    assert from_steps([thinks], ["1", " 1", "2", " 2"]) is None
    assert from_steps([step("The", The=0.9, x1=0.06, x2=0.03)], ["1", "2"]) is None
    assert probs(from_steps([step("The", The=0.8, x1=0.12, x2=0.05)], ["1", "2"])) == (
        pytest.approx([0.12, 0.05])
    )


def test_a_log_probability_above_0_is_taken_as_certain():
    assert from_steps([TokenLogprobs("1", 1e6, {"2": -3.0})], ["1", "2"])[0] == 0.0


def test_tokens_after_the_answer_and_empty_ones_change_nothing():
    first = step("1", x1=0.5, x2=0.4)
    for more in ([step("1", x1=0.9, x2=0.1)], [TokenLogprobs("", -0.1, {"": -0.1, "0": -3.0})]):
        assert from_steps([first, *more], ["1", "2"]) == from_steps([first], ["1", "2"])
