import math

import pytest

from jalign.data.kinds import HELPSTEER, recognize
from jalign.data.messages import messages_of
from jalign.data.records import Record, parse, prompt_key
from jalign.data.rows import rename

USER, REPLY, OTHER = (
    {"role": r, "content": c} for r, c in (("user", "u"), ("assistant", "a"), ("assistant", "b"))
)
SHAREGPT = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]
HH = "\n\nHuman: hi\n\nAssistant: yes\n\nHuman: more\n\nAssistant:"

LAYOUTS = [
    # (row, kind, the record it becomes)
    ({"text": "t"}, "supervised", Record("", ["t"], {})),
    ({"prompt": "p", "completion": "c"}, "supervised", Record("p", ["c"], {})),
    ({"question": "p", "answer": "c"}, "supervised", Record("p", ["c"], {})),
    ({"instruction": "p", "input": "i", "output": "c"}, "supervised", Record("p\n\ni", ["c"], {})),
    ({"messages": [USER, REPLY]}, "supervised", Record([USER], [[REPLY]], {})),
    ({"conversations": SHAREGPT}, "supervised", Record([USER], [[REPLY]], {})),
    ({"prompt": [USER], "answer": "a"}, "supervised", Record([USER], [[REPLY]], {})),
    ({"prompt": "p", "chosen": "a", "rejected": "b"}, "pairs", Record("p", ["a", "b"], {})),
    (
        {"prompt": [USER], "chosen": "a", "rejected": "b"},
        "pairs",
        Record([USER], [[REPLY], [OTHER]], {}),
    ),
    (
        {"prompt": [USER], "chosen": [REPLY], "rejected": [OTHER], "margin": 2},
        "pairs",
        Record([USER], [[REPLY], [OTHER]], {"margin": 2.0}),
    ),
    (
        {"chosen": [USER, REPLY], "rejected": [USER, OTHER]},
        "pairs",
        Record([USER], [[REPLY], [OTHER]], {}),
    ),
    (  # UltraFeedback: the prompt as text, and again in both conversations
        {
            "prompt": "u", "chosen": [USER, REPLY], "rejected": [USER, OTHER],
            "messages": [USER, REPLY], "score_chosen": 8, "score_rejected": 5,
        },
        "pairs",
        Record(
            [USER], [[REPLY], [OTHER]], {"score_chosen": 8.0, "score_rejected": 5.0, "margin": 3.0}
        ),
    ),
    (  # ShareGPT's kind of preferences
        {
            "conversations": SHAREGPT[:1], "chosen": SHAREGPT[1],
            "rejected": {"from": "gpt", "value": "b"},
        },
        "pairs",
        Record([USER], [[REPLY], [OTHER]], {}),
    ),
    ({"chosen": HH + " Yes", "rejected": HH + " Yo"}, "pairs", Record(HH, [" Yes", " Yo"], {})),
    (
        {"chosen": "We see a cat", "rejected": "We see a dog"},
        "pairs",
        Record("We see a", [" cat", " dog"], {}),
    ),
    (
        {"prompt": "p", "completion": "c", "label": False},
        "binary",
        Record("p", ["c"], {"label": 0.0}),
    ),
    ({"text": "t", "label": 1}, "binary", Record("", ["t"], {"label": 1.0})),
    (
        {"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]},
        "lists",
        Record("p", ["a", "b"], {"ratings": [1.0, 2.0]}),
    ),
    (
        {"prompt": "p", "responses": ["a", "b"], "rewards": [1, 2]},
        "lists",
        Record("p", ["a", "b"], {"ratings": [1.0, 2.0]}),
    ),
    (
        {"prompt": [USER], "completions": ["a", "b"], "ranks": [1, 2]},
        "lists",
        Record([USER], [[REPLY], [OTHER]], {"ratings": [-1.0, -2.0]}),
    ),
    (
        {"prompt": "p", "completion": "c", "score": 3},
        "rated",
        Record("p", ["c"], {"rating": 3.0}),
    ),
    (
        {"messages": [USER, REPLY], "reward": "-0.5"},
        "rated",
        Record([USER], [[REPLY]], {"rating": -0.5}),
    ),
    (
        {"prompt": "p", "response": "c", "attributes": {"kind": 2, "true": 0.5}},
        "rated",
        Record("p", ["c"], {"attribute_ratings": {"kind": 2.0, "true": 0.5}}),
    ),
    (  # HelpSteer
        {"prompt": "p", "response": "c"} | dict.fromkeys(HELPSTEER, 4),
        "rated",
        Record("p", ["c"], {"attribute_ratings": dict.fromkeys(HELPSTEER, 4.0)}),
    ),
    (
        {"prompt": "p", "completion": "c", "rating": 1, "attributes": {"a": 2}},
        "rated",
        Record("p", ["c"], {"attribute_ratings": {"a": 2.0}, "rating": 1.0}),
    ),
    (
        {
            "prompt": "p", "chosen": "a", "rejected": "b", "soft_label": 0.75,
            "chosen_win_rate": 1, "rejected_win_rate": 0, "density_ratio": 2,
        },
        "pairs",
        Record(
            "p",
            ["a", "b"],
            {"chosen_prob": 0.75, "chosen_win_rate": 1.0, "rejected_win_rate": 0.0},
        ),
    ),
    (
        {"prompt": "p", "completion": "c", "label": 1, "density_ratio": 2},
        "binary",
        Record("p", ["c"], {"density_ratio": 2.0, "label": 1.0}),
    ),
    (
        {"prompt": "p", "completions": ["s", "t"], "labels": [True, False]},
        "stepwise",
        Record("p", [["s", "t"]], {"step_labels": [1.0, 0.0]}),
    ),
    ({"prompt": "p"}, "prompts", Record("p", [], {})),
]  # fmt: skip


@pytest.mark.parametrize(("row", "kind", "record"), LAYOUTS)
def test_the_usual_layouts_are_recognized_and_parsed(row, kind, record):
    found, explanation = recognize(row, [row])
    assert found == kind and explanation.startswith(f"{kind}, from the columns")
    assert parse(row, kind) == record


def test_the_explanation_names_columns_their_form_and_optional_ones():
    row = {"question": [USER], "chosen": "a", "rejected": "b", "margin": 1, "id": "x"}
    assert recognize(row, [row])[1] == (
        "pairs, from the columns question as prompt (messages), chosen (text), rejected (text);"
        " also read: margin"
    )
    assert "both begin with" in recognize(["chosen", "rejected"])[1]


def test_the_wanted_kind_wins_over_the_richest_one():
    columns = ["prompt", "answer", "label"]
    assert [recognize(columns, wanted=w)[0] for w in (None, "supervised", "samples")] == [
        "binary", "supervised", "prompts",
    ]  # fmt: skip


def test_a_kind_that_can_be_made_from_the_data_is_named_in_the_explanation():
    kind, explanation = recognize(["prompt", "chosen", "rejected"], wanted="binary")
    assert kind == "pairs" and explanation.endswith("made into binary")


@pytest.mark.parametrize(
    ("columns", "wanted", "message"),
    [
        (["prompt", "choosen", "rejected"], "pairs", "'chosen' is missing; did you mean 'choosen'"),
        (["prompt", "completion"], "binary", "'label' is missing"),
        (["foo"], None, "unrecognized columns: foo"),
        (["prompt", "completion"], "rated", "rated needs prompt, completion, rating: 'rating' is"),
        (["prompt", "completion"], "joint", "pairs needs chosen, rejected: 'chosen' is missing"),
        (["prompt"], "pears", "unknown kind of data 'pears'; did you mean 'pairs'"),
    ],
)
def test_unrecognisable_columns_are_an_error_with_the_nearest_match(columns, wanted, message):
    with pytest.raises(ValueError, match=message):
        recognize(columns, wanted=wanted)


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "pairs", "no column 'rejected'"),
        ({"chosen": "a", "rejected": [REPLY]}, "pairs", "both be text or both be messages"),
        ({"prompt": "p", "completion": 3}, "supervised", "completion must be text or messages"),
        ({"messages": [{"role": "usr", "content": ""}]}, "supervised", "did you mean 'user'"),
        ({"messages": ["hi"]}, "supervised", "not a message"),
        ({"text": "t", "label": "maybe"}, "binary", "label must be True or False"),
        (
            {"prompt": "p", "responses": ["a"], "scores": [1, 2]},
            "lists",
            "1 responses but 2 ratings",
        ),
        ({"prompt": "p", "completions": ["a"], "labels": []}, "stepwise", "1 steps but 0 labels"),
        ({"text": "t", "margin": "wide"}, "supervised", "margin must be a number"),
        ({"text": "t", "margin": float("nan")}, "supervised", "margin must be finite"),
        ({"text": "t", "rating": None}, "rated", "rating must be a number, got None"),
        ({"text": "t", "rating": float("inf")}, "rated", "rating must be finite, got inf"),
        ({"text": "t", "raiting": 1}, "rated", "no column 'rating'; did you mean 'raiting'"),
        ({"text": "t", "attributes": [1]}, "rated", "must be numbers by name, got"),
        ({"text": "t", "attributes": "good"}, "rated", "must be numbers by name, got 'good'"),
        ({"text": "t", "attributes": {"a": "x"}}, "rated", "the attribute a must be a number"),
        ({"chosen": "a", "rejected": "b", "chosen_prob": 1.2}, "pairs", r"in \[0, 1\], got 1.2"),
        (
            {"chosen": "a", "rejected": "b", "preference": 2},
            "pairs",
            r"chosen_prob \(the column preference\) must be in \[0, 1\]",
        ),
        ({"text": "t", "label": 1, "density_ratio": -1}, "binary", "must be >= 0, got -1"),
        (
            {"prompt": "p", "steps": ["a"], "labels": [-1]},
            "stepwise",
            r"labels must be in \[0, 1\]",
        ),
    ],
)
def test_rows_that_do_not_parse_say_why(row, kind, message):
    with pytest.raises(ValueError, match=message):
        parse(row, kind)


def test_a_column_of_another_name_counts_as_a_probability_only_where_it_holds_numbers():
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "preference": "the first"}
    assert parse(row, "pairs").extras == {} and "also read" not in recognize(row, [row])[1]
    row["preference"] = "0.5"  # as CSV has it
    assert parse(row, "pairs").extras == {"chosen_prob": 0.5}
    assert recognize(row, [row])[1].endswith("also read: preference as chosen_prob")
    with pytest.raises(ValueError, match="chosen_prob must be a number, got 'high'"):
        parse(row | {"chosen_prob": "high"}, "pairs")


def test_an_attribute_without_a_number_is_nan():
    row = {"prompt": "p", "completion": "c", "attributes": '{"a": null, "b": 2}'}
    found = parse(row, "rated").extras["attribute_ratings"]
    assert math.isnan(found["a"]) and found["b"] == 2.0


def test_the_prompt_of_a_row_is_known_whatever_its_score_looks_like():
    assert prompt_key({"prompt": "p ", "completion": "c", "score": "good"}) == "p"
    assert prompt_key({"text": "t", "label": "positive"}) == prompt_key({"text": "t", "label": 1})


def test_identical_sides_still_have_a_reply_each():
    same = [USER, REPLY]
    assert parse({"chosen": same, "rejected": same}, "pairs").responses == [[REPLY], [REPLY]]


def test_message_parts_of_text_are_joined_and_others_refused():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert messages_of([{"role": "user", "content": parts}]) == [{"role": "user", "content": "ab"}]
    with pytest.raises(ValueError, match="only text"):
        messages_of([{"role": "user", "content": [{"type": "image", "url": "x"}]}])


def test_columns_can_be_renamed():
    row = {"prompt": "p", "answer": "72", "solution": "s"}
    assert parse(rename([row], {"completion": "solution"})[0], "supervised").responses == ["s"]
    with pytest.raises(ValueError, match="did you mean 'solution'"):
        rename([row], {"completion": "solutoin"})
