"""Labels and ratings from a judge: what it is shown, and what is made of its answers."""

import pytest

from jalign.rewards.rating import Ratings, additive_ratings, direct_score, points_in, self_reward
from jalign.rewards.rlaif import Comparison, Exemplar, annotator, labeler
from tests.rewards._judge import Judge


def one(p):
    """Says 1 with probability p, in two spellings."""
    return {"1": 0.8 * 0.75 * p, " 1": 0.8 * 0.25 * p, "2": 0.8 * (1 - p), "the": 0.2}


def by_word(prompt):
    """Likes `good` and the first slot."""
    return one(0.9 if prompt.index("good") < prompt.index("bad") else 0.3)


def test_a_label_is_the_softmax_over_both_answers_in_both_orders():
    assert Comparison(Judge(by_word))(["p"], ["good"], ["bad"]) == [pytest.approx(0.9)]
    labels = labeler(Judge(by_word)).label(["p", "p"], ["good", "bad"], ["bad", "good"])
    assert labels.probs == pytest.approx([(0.9 + 1 - 0.3) / 2, (0.3 + 1 - 0.9) / 2])
    assert labels.position_bias == 0 and labels.failed == 0


def test_a_judge_that_sees_only_slots_is_found_out():
    labels = labeler(Judge(lambda prompt: one(0.8))).label(["p"] * 3, "abc", "def")
    assert labels.probs == pytest.approx([0.5] * 3) and labels.position_bias == 1


def test_an_order_without_an_answer_leaves_the_pair_without_a_label():
    only = lambda prompt: one(0.8) if prompt.index("good") < prompt.index("bad") else None  # noqa: E731
    labels = labeler(Judge(only)).label(["p"], ["good"], ["bad"])
    assert labels.probs == [None] and labels.failed == 1


def test_the_prompt_is_preamble_instructions_exemplars_sample_and_ending(tmp_path):
    files = {"preamble": "Compare.", "ending": "Better:",
             "sample": "T {prompt}\n1 {response_1}\n2 {response_2}"}  # fmt: skip
    for name, text in files.items():
        (tmp_path / f"{name}.txt").write_text(f"{text}\n")
    paths = {name: tmp_path / f"{name}.txt" for name in files}
    shown = [Exemplar("x", "a", "b", 2), Exemplar("y", "c", "d", 1)]
    judge = Judge(lambda prompt: one(0.5))
    Comparison(judge, **paths, exemplars=shown, instructions="Be brief.")(["p"], ["q"], ["r"])
    assert judge.chosen == [
        "Compare.\n\nBe brief.\n\nT x\n1 a\n2 b\n\nBetter: 2\n\nT y\n1 c\n2 d\n\nBetter: 1\n\n"
        "T p\n1 q\n2 r\n\nBetter:"
    ]


def test_reasons_are_written_first_and_the_label_is_given_in_sight_of_them(tmp_path):
    (tmp_path / "reasons.txt").write_text("Why?")
    said = [" Because.\n", "So."]
    judge = Judge(lambda prompt: one(0.7), lambda prompt, i: said[i])
    shown = [Exemplar("x", "a", "b", 2, "It is.")]
    prefer = Comparison(
        judge, reasons=tmp_path / "reasons.txt", exemplars=shown, max_reason_tokens=77
    )
    assert prefer(["p", "p"], "qr", "st") == pytest.approx([0.7, 0.7])
    assert judge.numbers == [(77, 0.0)]
    assert all(text.endswith("\n\nWhy?") for text in judge.written)
    ending = "\n\nNumber of the better response:"
    assert judge.chosen == [
        f"{asked} {reason}{ending}"
        for asked, reason in zip(judge.written, ["Because.", "So."], strict=True)
    ]
    assert f"\n\nWhy? It is.{ending} 2\n\n" in judge.chosen[0]


def test_without_reasons_there_is_no_label_where_they_were_asked_for():
    judge = Judge(lambda prompt: one(0.7), lambda prompt, i: [None, " ", "because"][i])
    prefer = Comparison(judge, reasons="reasons")
    assert prefer(["p"] * 3, "abc", "def") == [None, None, pytest.approx(0.7)]
    assert len(judge.chosen) == 1


def test_votes_are_the_mean_over_the_reasons_of_a_judge_that_thinks():
    """Of three thoughts about the first pair one prefers the second slot and one says nothing."""
    said = ["first", "second", " ", "first", "first", "first"]
    judge = Judge(
        lambda prompt: one(0.2 if "second" in prompt[-60:] else 0.9), lambda p, i: said[i]
    )
    prefer = Comparison(judge, reasons="reasons", votes=3, temperature=0.7)
    assert prefer(["p", "p"], "ab", "cd") == [pytest.approx(0.55), pytest.approx(0.9)]
    assert judge.numbers == [(512, 0.7)] and len(judge.written) == 6


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"votes": 3}, "votes and temperature are of the reasons"),
        ({"votes": 3, "reasons": "reasons"}, "at temperature 0 all votes are the same"),
        ({"votes": 0, "reasons": "reasons"}, "votes must be at least 1, got 0"),
    ],
)
def test_votes_that_mean_nothing_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        Comparison(Judge(lambda prompt: one(0.5)), **options)


def test_an_annotator_is_steered_by_instructions():
    wish = "Of two responses of like worth, the shorter is better."
    judge = Judge(lambda prompt: one(0.9 if wish in prompt else 0.1))
    assert annotator(judge, instructions=wish).prefer(["p"], "a", "b") == [pytest.approx(0.9)]
    assert annotator(judge).prefer(["p"], "a", "b") == [pytest.approx(0.1)]


def test_what_a_response_says_about_templates_is_only_text():
    judge = Judge(lambda prompt: one(0.5))
    Comparison(judge)(["{response_1}"], ["{prompt}"], ["{{"])
    for text in ("Text:\n{response_1}\n", "1:\n{prompt}\n", "2:\n{{\n"):
        assert text in judge.chosen[0]


@pytest.mark.parametrize(
    "options, error",
    [
        ({"exemplars": [Exemplar("p", "a", "b", 0)]}, "exemplar 0: preferred must be 1 or 2"),
        ({"exemplars": [Exemplar("p", "a", "b", 1, "why")]}, "reasons nobody asks for"),
        ({"exemplars": [Exemplar("p", "a", "b", 1)], "reasons": "reasons"}, "has no reasons"),
        ({"sample": "rate"}, "unknown field"),
        ({"preamble": "preamble_harmles"}, "did you mean 'preamble_harmless'"),
        ({"preamble": "sample"}, "unknown field"),
        ({"max_reason_tokens": 0}, "at least 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        labeler(Judge(), **options)


# ---- direct ratings


def test_a_direct_score_is_the_expected_rating_brought_to_minus_one_to_one():
    weights = {"1": 0.1, "10": 0.3, "7": 0.2, " 7": 0.2}
    judge = Judge(lambda prompt: weights)
    expected = (0.1 * 1 + 0.3 * 10 + 0.4 * 7) / 0.8
    assert direct_score(judge, ["p"], ["r"]) == [pytest.approx(2 * (expected - 1) / 9 - 1)]
    best, worst = Judge(lambda p: {"10": 1.0}), Judge(lambda p: {"1": 1.0})
    assert direct_score(best, ["p"], ["r"]) == [pytest.approx(1.0)]
    assert direct_score(worst, ["p"], ["r"]) == [pytest.approx(-1.0)]


def test_a_scale_of_one_digit_asks_for_its_numbers_only():
    judge = Judge(lambda prompt: {"0": 0.5, "9": 0.25, "10": 0.25})
    found = direct_score(judge, ["the text", "b"], ["the response", "d"], low=0, high=9)
    assert found == [pytest.approx(2 * 3 / 9 - 1)] * 2
    assert "number from 0 to 9: 0 for" in judge.chosen[0]
    assert "Text:\nthe text\n" in judge.chosen[0] and "Response:\nthe response\n" in judge.chosen[0]


def test_a_rating_that_did_not_come_is_none():
    judge = Judge(lambda prompt: None if "bad" in prompt else {"5": 1.0})
    found = direct_score(judge, ["p", "p"], ["bad", "good"])
    assert found == [None, pytest.approx(2 * 4 / 9 - 1)]
    for low, high in ((1, 1), (-1, 5), (5, 1)):
        with pytest.raises(ValueError, match="a scale goes from"):
            direct_score(judge, [], [], low=low, high=high)


# ---- points


@pytest.mark.parametrize(
    "text, points",
    [
        ("Good.\nScore: 4", 4.0),
        ("Score: 3.5.", 3.5),
        ("score : 2 points", 2.0),
        ("**Score:** 5/5", 5.0),
        ("Score: **1**", 1.0),
        ("Score: <0>", 0.0),
        ("Score: 2 at first, then\nScore: 3", 3.0),
        ("Score: 50", None),
        ("Score: 5.5", None),
        ("_Score_: 4.", 4.0),
        ("Score: -1", None),
        ("Score: 5/10", None),
        ("Score: 4.5 / 10", None),
        ("underscore: 4", None),
        ("Score: N", None),
        ("4 of 5", None),
        ("Underscore it: 4", None),
        ("", None),
        (None, None),
    ],
)
def test_points_stand_behind_the_last_score(text, points):
    assert points_in(text) == points


def test_points_are_averaged_over_the_judgments_that_name_some():
    said = ["Score: 4", "no", "Score: 1", None, "none", "Score: 9"]
    judge = Judge(said=lambda prompt, i: said[i])
    found = additive_ratings(judge, ["p", "q"], ["r", "s"], samples=3, temperature=0.4)
    assert found == Ratings([2.5, None], 4)
    assert judge.numbers == [(256, 0.4)]
    assert judge.written[0] == judge.written[2] != judge.written[3]
    assert "What was asked:\nq\n" in judge.written[3] and "response:\ns\n" in judge.written[3]
    judge = Judge(said=lambda prompt, i: said[i])
    assert self_reward(judge, ["p"], ["r"], samples=1, temperature=0.0) == [4.0]


def test_samples_that_would_be_all_the_same_are_refused():
    with pytest.raises(ValueError, match="use samples=1"):
        additive_ratings(Judge(), ["p"], ["r"], temperature=0.0)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        additive_ratings(Judge(), ["p"], ["r"], samples=0)
