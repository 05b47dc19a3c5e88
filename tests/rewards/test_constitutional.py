"""Principles: rounds of critique and revision, and comparisons by one that is drawn."""

import json

import pytest

from jalign.rewards.constitutional import (
    CLAMP,
    Principle,
    comparison,
    feedback,
    principles,
    revise,
)
from tests.rewards._judge import Judge

BY = [Principle(n, f"critique {n}", f"revision {n}", f"comparison {n}") for n in "abcde"]


def test_the_principles_that_ship_are_complete_and_differ():
    found = principles()
    assert len(found) == 14
    for texts in zip(*found, strict=True):
        assert len(set(texts)) == len(found)
    assert all(p.critique.endswith(".") and p.revision.endswith(".") for p in found)
    assert all(p.comparison.endswith("?") for p in found)


@pytest.mark.parametrize(
    "content, error",
    [
        ("{", "is no JSON"),
        ("{}", "must be a list"),
        ("[]", "must be a list"),
        ("[1]", "principle 0 lacks the field 'comparison'"),
        ([{**BY[0]._asdict(), "critic": "x"}], "unknown field 'critic'; did you mean 'critique'"),
        ([{**BY[0]._asdict(), "name": " "}], "every field of principle 0 must be a text"),
        ([BY[0]._asdict()] * 2, "two principles have one name"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, error):
    file = tmp_path / "mine.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ValueError, match=error):
        principles(file)
    with pytest.raises(ValueError, match="no file of principles"):
        principles(tmp_path / "other.json")


def test_a_file_of_ones_own_is_read(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps([p._asdict() for p in BY]))
    assert principles(tmp_path / "mine.json") == BY


class Writer(Judge):
    """Critiques and revises; what it writes says which call it was and of what."""

    def __init__(self, silent=()):
        super().__init__(said=self.write)
        self.silent = silent

    def write(self, prompt, i):
        kind = "C" if prompt.endswith("Critique:") else "R"
        response = prompt.split("Response:\n")[1].split("\n")[0]
        return None if (kind, response) in self.silent else f" {kind}({response})\n"


def test_each_round_revises_what_the_last_one_wrote_and_all_are_returned():
    judge = Writer()
    first, second = revise(judge, ["p", "q"], ["x", "y"], by=BY, rounds=3, max_tokens=9)
    assert [r.response for r in first] == ["R(x)", "R(R(x))", "R(R(R(x)))"]
    assert [r.critique for r in second] == ["C(y)", "C(R(y))", "C(R(R(y)))"]
    assert len({r.principle for r in first}) == 3  # another one in each round
    assert judge.numbers == [(9, 1.0)] * 6  # one call per step, for all that go on
    critique, revision = judge.written[4], judge.written[6]  # of the second round
    assert "\n\np\n\nResponse:\nR(x)\n" in critique
    assert f"critique {first[1].principle}" in critique
    assert f"revision {first[1].principle}" in revision and "\nC(R(x))\n" in revision


def test_who_gets_no_answer_stops_there_and_the_others_go_on():
    judge = Writer(silent=[("C", "R(x)"), ("R", "y")])
    found = revise(judge, ["p"] * 3, ["x", "y", "z"], by=BY, rounds=2)
    assert [[r.response for r in row] for row in found] == [["R(x)"], [], ["R(z)", "R(R(z))"]]


def test_which_principles_are_drawn_follows_from_seed_and_texts_alone():
    names = lambda rows: [[r.principle for r in row] for row in rows]  # noqa: E731
    many = revise(Writer(), ["p"] * 12, [f"x{i}" for i in range(12)], by=BY, rounds=2)
    assert len(set(map(tuple, names(many)))) > 5
    alone = revise(Writer(), ["p"], ["x7"], by=BY, rounds=2)
    assert names(alone) == names(many[7:8])
    other = revise(Writer(), ["p"] * 12, [f"x{i}" for i in range(12)], by=BY, rounds=2, seed=1)
    assert names(other) != names(many)
    long = revise(Writer(), ["p"], ["x"], by=BY[:2], rounds=5)
    assert [r.principle for r in long[0]][:2] == [r.principle for r in long[0]][2:4]


def letters(p):
    return {"(A)": 0.5 * p, " (A)": 0.25 * p, "(B)": 0.75 * (1 - p)}


def test_a_comparison_is_the_softmax_over_both_letters_by_one_principle_in_both_orders():
    judge = Judge(
        lambda prompt: letters(0.9 if prompt.index("good") < prompt.index("bad") else 0.4)
    )
    labels = feedback(judge, by=BY).label(["p"], ["good"], ["bad"])
    assert labels.probs == [pytest.approx((0.9 + 0.6) / 2)] and labels.position_bias == 0
    drawn = [[p.name for p in BY if p.comparison in prompt] for prompt in judge.chosen]
    assert len(drawn[0]) == 1 and drawn[0] == drawn[1]
    assert "(A) good\n\n(B) bad\n\nThe answer" in judge.chosen[0]


def test_principles_of_comparisons_are_drawn_pair_by_pair():
    judge = Judge(lambda prompt: letters(0.5))
    pairs = ["p"] * 20, [f"a{i}" for i in range(20)], ["b"] * 20
    comparison(judge, by=BY)(*pairs)
    first = list(judge.chosen)
    assert len({p.name for p in BY for prompt in first if p.comparison in prompt}) == len(BY)
    comparison(judge, by=BY)(*pairs)
    assert judge.chosen[20:] == first
    comparison(judge, by=BY, seed=1)(*pairs)
    assert judge.chosen[40:] != first


def test_after_a_chain_of_thought_probabilities_are_kept_near_a_half():
    p = {"x": 0.99, "y": 0.01, "z": 0.55}
    judge = Judge(
        lambda prompt: letters(next(v for k, v in p.items() if f"(A) {k}\n" in prompt)),
        lambda prompt, i: ["I think.\n", " so", "well", None][i],
    )
    prefer = comparison(judge, by=BY, thoughts="feedback_thoughts", max_thought_tokens=5)
    found = prefer(["p"] * 4, ["x", "y", "z", "x"], ["b"] * 4)
    assert found == [CLAMP[1], CLAMP[0], pytest.approx(0.55), None]
    assert judge.numbers == [(5, 0.0)] and len(judge.chosen) == 3
    assert "\n\n(B) b\n\nI think.\n\nThe answer" in judge.chosen[0]
    plain = comparison(judge, by=BY)(["p"], ["x"], ["b"])
    assert plain == [pytest.approx(0.99)]


def test_without_principles_or_rounds_nothing_can_be_done():
    with pytest.raises(ValueError, match="there must be principles"):
        comparison(Judge(), by=[])
    with pytest.raises(ValueError, match="there must be principles"):
        revise(Judge(), [], [], by=[])
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        revise(Judge(), [], [], by=BY, rounds=0)
