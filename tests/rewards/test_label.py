"""What a judge says becomes records; what it does not say, or says of nothing, is counted."""

import pytest

from jalign.data.convert import to_records
from jalign.rewards.label import candidates, preferences, ratings, text_of
from jalign.rewards.rating import Ratings


def records(*rows):
    return [candidates(row) for row in rows]


def row(prompt, *responses):
    return {"prompt": prompt, "responses": list(responses)}


def by_length(prompts, first, second):
    """P(the longer one is better) = 0.8; None where a text says so."""
    return [
        None if "?" in a + b else 0.5 + 0.3 * ((len(a) > len(b)) - (len(a) < len(b)))
        for a, b in zip(first, second, strict=True)
    ]


def test_the_better_response_is_the_chosen_one_with_its_probability():
    made = preferences(by_length, records(row("p", " aa", " b"), row("q", "c", "dd")))
    assert [one.rows for one in made] == [
        [{"prompt": "p", "chosen": " aa", "rejected": " b", "chosen_prob": 0.8}],
        [{"prompt": "q", "chosen": "dd", "rejected": "c", "chosen_prob": 0.8}],
    ]
    found, _ = to_records([r for one in made for r in one.rows], "pairs")
    assert found[0].extras["chosen_prob"] == 0.8  # as soft reward models read it


def test_of_more_responses_every_two_are_compared():
    (made,) = preferences(by_length, records(row("p", "a", "bb", "ccc")))
    pairs = [(r["chosen"], r["rejected"]) for r in made.rows]
    assert pairs == [("bb", "a"), ("ccc", "a"), ("ccc", "bb")] and not made.dropped


@pytest.mark.parametrize(
    ("responses", "why"),
    [
        (("a",), "there are not two responses"),
        (("a", " "), "a response is empty"),
        (("a", " a\n"), "both responses are the same"),
        (("a?", "bb"), "the judge gave no answer"),
        (("a", "b"), "the judge prefers neither response"),
    ],
)
def test_what_gives_no_pair_is_counted_with_its_reason(responses, why):
    (made,) = preferences(by_length, records(row("p", *responses)))
    assert made == ([], [why])


def rate(prompts, responses):
    points = [None if "?" in text else float(len(text)) for text in responses]
    return Ratings(points, 2 * points.count(None))


def test_rated_responses_become_lists_of_which_dpo_reads_the_best_and_the_worst():
    made = ratings(rate, records(row("p", "a", "bbb", "?", "cc", "a"), row("q", "a", "b")))
    assert made[0].rows == [
        {"prompt": "p", "responses": ["a", "bbb", "cc"], "ratings": [1.0, 3.0, 2.0]}
    ]
    assert made[0].dropped == [
        "a response is there twice",
        "a judgment names no points",
        "a judgment names no points",
        "the judge did not rate a response",
    ]
    assert made[1] == ([], ["all responses are rated alike"])
    (pair,), _ = to_records(made[0].rows, "pairs")
    assert pair.responses == ["bbb", "a"] and pair.extras["margin"] == 2


def test_one_rated_response_alone_says_nothing():
    (made,) = ratings(rate, records(row("p", "a", "?", "")))
    assert not made.rows and made.dropped[-1] == "no two responses are rated"
    assert "a response is empty" in made.dropped


def test_candidates_are_read_from_samples_pairs_and_answers_whoever_judged_them_before():
    for given, responses in (
        (row("p", "a", "b"), ["a", "b"]),
        (row("p", "a", "b") | {"rewards": [1, None]}, ["a", "b"]),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1.0}, ["a", "b"]),
        ({"prompt": "p", "completion": "a"}, ["a"]),
    ):
        found = candidates(given)
        assert (found.prompt, found.responses, found.extras) == ("p", responses, {})
    with pytest.raises(ValueError, match="no column 'completion'"):
        candidates({"prompt": "p"})


def test_a_judge_reads_conversations_as_text_and_the_record_keeps_them():
    one = [{"role": "user", "content": "hi"}]
    talk = [*one, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "bye"}]
    assert text_of(one) == "hi" and text_of("x") == "x"
    assert text_of(talk) == "User: hi\n\nAssistant: yes?\n\nUser: bye"
    answers = [[{"role": "assistant", "content": text}] for text in ("a", "bb")]
    asked = []

    def prefer(*given):
        asked.extend(given)
        return by_length(*given)

    (made,) = preferences(prefer, records({"prompt": talk, "responses": answers}))
    assert asked == [[text_of(talk)], ["a"], ["bb"]]
    assert made.rows[0]["prompt"] == talk and made.rows[0]["chosen"] == answers[1]
