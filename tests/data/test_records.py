import pytest

from jalign.data.records import Record, messages_of, parse, recognise, rename

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
        Record("p", ["a", "b"], {"scores": [1.0, 2.0]}),
    ),
    (
        {"prompt": [USER], "completions": ["a", "b"], "ranks": [1, 2]},
        "lists",
        Record([USER], [[REPLY], [OTHER]], {"scores": [-1.0, -2.0]}),
    ),
    (
        {"prompt": "p", "completions": ["s", "t"], "labels": [True, False]},
        "stepwise",
        Record("p", [["s", "t"]], {"step_labels": [1.0, 0.0]}),
    ),
    ({"prompt": "p"}, "prompts", Record("p", [], {})),
]  # fmt: skip


@pytest.mark.parametrize(("row", "kind", "record"), LAYOUTS)
def test_the_usual_layouts_are_recognised_and_parsed(row, kind, record):
    found, explanation = recognise(row, [row])
    assert found == kind and explanation.startswith(f"{kind}, from the columns")
    assert parse(row, kind) == record


def test_the_explanation_names_columns_their_form_and_optional_ones():
    row = {"question": [USER], "chosen": "a", "rejected": "b", "margin": 1, "id": "x"}
    assert recognise(row, [row])[1] == (
        "pairs, from the columns question as prompt (messages), chosen (text), rejected (text);"
        " also read: margin"
    )
    assert "both begin with" in recognise(["chosen", "rejected"])[1]


def test_the_wanted_kind_wins_over_the_richest_one():
    columns = ["prompt", "answer", "label"]
    assert [recognise(columns, wanted=w)[0] for w in (None, "supervised", "samples")] == [
        "binary", "supervised", "prompts",
    ]  # fmt: skip


def test_a_kind_that_can_be_made_from_the_data_is_named_in_the_explanation():
    kind, explanation = recognise(["prompt", "chosen", "rejected"], wanted="binary")
    assert kind == "pairs" and explanation.endswith("made into binary")


@pytest.mark.parametrize(
    ("columns", "wanted", "message"),
    [
        (["prompt", "choosen", "rejected"], "pairs", "'chosen' is missing; did you mean 'choosen'"),
        (["prompt", "completion"], "binary", "'label' is missing"),
        (["foo"], None, "unrecognised columns: foo"),
        (["prompt"], "pears", "unknown kind of data 'pears'; did you mean 'pairs'"),
    ],
)
def test_unrecognisable_columns_are_an_error_with_the_nearest_match(columns, wanted, message):
    with pytest.raises(ValueError, match=message):
        recognise(columns, wanted=wanted)


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
            "1 responses but 2 scores",
        ),
        ({"prompt": "p", "completions": ["a"], "labels": []}, "stepwise", "1 steps but 0 labels"),
        ({"text": "t", "margin": "wide"}, "supervised", "margin must be a number"),
    ],
)
def test_rows_that_do_not_parse_say_why(row, kind, message):
    with pytest.raises(ValueError, match=message):
        parse(row, kind)


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
