"""New prompts are shown in sight of others, and kept only where they are new."""

import re

import pytest

from jalign.rewards.self_instruct import generate_prompts, rouge_l

SEEDS = [f"write a {what} about a {whom}" for what in ("song", "poem", "tale") for whom in "abcd"]


class Writer:
    """Says what it is given to say, and keeps what it was asked."""

    def __init__(self, *said):
        self.said, self.asked = said, []

    def complete(self, prompts, *, max_tokens, temperature):
        self.asked += prompts
        return [self.said[i % len(self.said)] for i in range(len(prompts))]


def shown(prompt):
    return re.findall(r"^Task \d+: (.*)$", prompt, re.M)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("a b c d", "b d", 4 / 6),  # of length 2: 2 * 2 / (4 + 2)
        ("a b", "b a", 0.5),
        ("a a b", "a b a", 4 / 6),
        ("a", "b", 0.0),
        ("", "a", 0.0),
    ],
)
def test_rouge_l_is_f1_of_the_longest_common_subsequence(a, b, expected):
    assert rouge_l(a.split(), b.split()) == pytest.approx(expected)
    assert rouge_l(b.split(), a.split()) == pytest.approx(expected)


def test_a_prompt_ends_where_the_model_begins_another():
    made = generate_prompts(Writer("Name five rivers.\nOf Asia.\n\nTask 10: more"), SEEDS, [], [0])
    assert made == [([{"prompt": "Name five rivers.\nOf Asia."}], [])]


def test_what_is_no_new_prompt_is_left_out_with_its_reason():
    said = ["Name five rivers", None, "One", "word " * 200, "name, five rivers!", SEEDS[3]]
    made = generate_prompts(Writer(*said), SEEDS, [], range(6))
    assert [len(one.rows) for one in made] == [1, 0, 0, 0, 0, 0]
    assert [one.dropped for one in made[1:]] == [
        ["the model wrote nothing"],
        ["a prompt is not of 3 to 150 words"],
        ["a prompt is not of 3 to 150 words"],
        ["a prompt is too like one that is there"],
        ["a prompt is too like one that is there"],
    ]


def test_six_prompts_of_people_and_two_of_the_model_are_shown():
    writer, own = Writer("Name five rivers"), ["its own one", "its own two", "its own three"]
    generate_prompts(writer, SEEDS, own, [0, 1])
    for prompt in writer.asked:
        assert len(set(shown(prompt))) == 8 and prompt.endswith("Task 9:")
        assert sum(text in own for text in shown(prompt)) == 2
    assert shown(writer.asked[0]) != shown(writer.asked[1])
    generate_prompts(writer, SEEDS, [], [0])
    assert (
        all(text in SEEDS for text in shown(writer.asked[2])) and len(shown(writer.asked[2])) == 8
    )


def test_what_is_shown_follows_from_seed_and_attempt_alone():
    one, other, third = Writer("a b c"), Writer("a b c"), Writer("a b c")
    generate_prompts(one, SEEDS, [], [0, 1, 2])
    generate_prompts(other, SEEDS, [], [2])
    generate_prompts(third, SEEDS, [], [2], seed=1)
    assert one.asked[2] == other.asked[0] != third.asked[0]


def test_numbers_out_of_range_and_too_few_seeds_are_refused():
    with pytest.raises(ValueError, match="own_shots must be in"):
        generate_prompts(Writer("a"), SEEDS, [], [0], own_shots=8)
    with pytest.raises(ValueError, match="there must be 8 prompts to show, got 3"):
        generate_prompts(Writer("a"), SEEDS[:3], [], [0])
