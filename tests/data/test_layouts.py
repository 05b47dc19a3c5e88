"""Layouts that public data sets have, and files as people have them."""

import json

import pytest

from jalign.data import sources
from jalign.data.convert import to_records
from jalign.data.records import Record
from jalign.rewards.label import candidates

USER, A, B = (
    {"role": r, "content": c} for r, c in (("user", "u"), ("assistant", "a"), ("assistant", "b"))
)
SHAREGPT = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]
PAIR, SWAPPED = Record("p", ["a", "b"], {}), Record("p", ["b", "a"], {})
LAYOUTS = {
    "PKU-SafeRLHF": (
        {"prompt": "p", "response_0": "a", "response_1": "b", "is_response_0_safe": True,
         "better_response_id": 1, "safer_response_id": 0},
        "pairs", SWAPPED,
    ),
    "the safer one": (
        {"prompt": "p", "response_0": "a", "response_1": "b", "safer_response_id": 0},
        "pairs", PAIR,
    ),
    "HelpSteer2 preference": (
        {"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": 2},
        "pairs", SWAPPED,
    ),
    "HelpSteer3": (
        {"context": [USER], "response1": "a", "response2": "b", "overall_preference": -1},
        "pairs", Record([USER], [[A], [B]], {}),
    ),
    "Chatbot Arena": (
        {"conversation_a": [USER, A], "conversation_b": [USER, B], "winner": "model_b"},
        "pairs", Record([USER], [[B], [A]], {}),
    ),
    "SHP": (
        {"history": "p", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 9},
        "pairs", PAIR,
    ),
    "pairs with scores": (
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_score": 4.0, "rejected_score": 1},
        "pairs",
        Record("p", ["a", "b"], {"score_chosen": 4.0, "score_rejected": 1.0, "margin": 3.0}),
    ),
    "Intel/orca_dpo_pairs": (
        {"system": "s", "question": "q", "chosen": "a", "rejected": "b"},
        "pairs", Record("s\n\nq", ["a", "b"], {}),
    ),
    "messages as JSON text": (
        {"chosen": json.dumps([USER, A]), "rejected": json.dumps([USER, B])},
        "pairs", Record([USER], [[A], [B]], {}),
    ),
    "Nectar": (
        {"prompt": "p", "answers": [{"answer": "a", "rank": 1.0}, {"answer": "b", "rank": 2.0}]},
        "lists", Record("p", ["a", "b"], {"ratings": [-1.0, -2.0]}),
    ),
    "UltraFeedback": (
        {"instruction": "p", "models": ["x", "y"],
         "completions": [{"response": "a", "overall_score": 8.0, "model": "x"},
                         {"response": "b", "overall_score": 2.0, "model": "y"}]},
        "lists", Record("p", ["a", "b"], {"ratings": [8.0, 2.0]}),
    ),
    "Capybara": (
        {"conversation": [{"input": "u", "output": "a"}], "source": "x"},
        "supervised", Record([USER], [[A]], {}),
    ),
    "OpenOrca": (
        {"id": "1", "system_prompt": "s", "question": "q", "response": "a"},
        "supervised", Record("s\n\nq", ["a"], {}),
    ),
    "input and output": ({"input": "q", "output": "a"}, "supervised", Record("q", ["a"], {})),
    "FLAN": ({"inputs": "q", "targets": "a"}, "supervised", Record("q", ["a"], {})),
    "ShareGPT as JSON text": (
        {"conversations": json.dumps(SHAREGPT)}, "supervised", Record([USER], [[A]], {}),
    ),
    "a greeting first": (
        {"conversations": [{"from": "gpt", "value": "b"}, *SHAREGPT]},
        "supervised", Record([B, USER], [[A]], {}),
    ),
    "chat steps": (
        {"prompt": [USER], "completions": ["x", "y"], "labels": [True, False]},
        "stepwise", Record([USER], [["x", "y"]], {"step_labels": [1.0, 0.0]}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_public_layout_is_recognized_also_where_its_kind_is_asked_for(name):
    row, kind, record = LAYOUTS[name]
    for wanted in (None, kind):
        (found,), report = to_records([row], wanted)
        assert report.kind == kind and found == record


def test_what_a_layout_does_not_read_is_named():
    explanation = to_records([LAYOUTS["PKU-SafeRLHF"][0]])[1].explanation
    assert "first, second, better are response_0, response_1, better_response_id" in explanation
    assert explanation.endswith("not read: is_response_0_safe, safer_response_id")
    assert (
        "answers hold responses with their r" in to_records([LAYOUTS["Nectar"][0]])[1].explanation
    )


def test_a_tie_teaches_nothing_and_is_counted():
    row = LAYOUTS["HelpSteer2 preference"][0]
    rows = [row | {"preference_strength": x} for x in (0, -1, None)]
    records, report = to_records(rows, "pairs")
    assert [r.responses for r in records] == [["a", "b"]]
    assert report.dropped == {"neither response is better": 2}
    arena = LAYOUTS["Chatbot Arena"][0]
    _, report = to_records([arena | {"winner": "tie (bothbad)"}, arena], "pairs")
    assert report.dropped == {"neither response is better": 1}
    with pytest.raises(ValueError, match=r"better must be 0 .*, got 'winner: model_c'"):
        to_records([arena | {"winner": "model_c"}], "pairs")


def test_both_responses_of_a_choice_are_candidates_for_a_judge():
    assert candidates(LAYOUTS["PKU-SafeRLHF"][0]).responses == ["a", "b"]
    assert candidates(LAYOUTS["Nectar"][0]).responses == ["a", "b"]


def test_calls_in_the_roles_of_sharegpt_are_tool_calls():
    said = [SHAREGPT[0], {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'}]
    said += [{"from": "observation", "value": "1"}, SHAREGPT[1]]
    (record,), _ = to_records([{"conversations": said}])
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    assert record.responses == [
        [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "1"},
            A,
        ]
    ]
    with pytest.raises(ValueError, match="row 0: function_call must be JSON, got 'f'"):
        to_records([{"conversations": [said[0], {"from": "function_call", "value": "f"}]}])


def test_an_unrelated_column_that_makes_a_richer_kind_does_not_matter():
    rows = [
        {"prompt": f"p{i}", "completion": "c", "completions": 3, "labels": 1} for i in range(30)
    ]
    train, held = sources.split(rows, 0.3, wanted="supervised")
    assert len(train) + len(held) == 30
    assert "not read: completions, labels" in to_records(rows, "supervised")[1].explanation


def test_attributes_of_which_one_is_never_rated_are_still_attributes():
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    row = {"prompt": "p", "response": "a"} | dict.fromkeys(names, 1) | {"verbosity": None}
    _, report = to_records([row], "rated")
    assert report.attributes == names


ROWS = [{"prompt": "a;b", "completion": "c,d"}, {"prompt": 'say "e"', "completion": "f\ng"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", 'prompt;completion\n"a;b";c,d\n"say ""e""";"f\ng"\n'),
        ("x.csv", 'prompt\tcompletion\na;b\tc,d\n"say ""e"""\t"f\ng"\n'),
        ("x.tsv", 'prompt\tcompletion\r\na;b\tc,d\r\n"say ""e"""\t"f\r\ng"\r\n'),
        ("x.json", json.dumps({"data": ROWS, "version": 2}, indent=1)),
        ("x.json", json.dumps({"train": ROWS, "test": ROWS[:1]})),
        ("x.json", json.dumps({"whatever": ROWS})),
        ("x.jsonl", json.dumps(ROWS, indent=1)),
        ("x.json", "\n" + "\n".join(map(json.dumps, ROWS))),
    ],
)
def test_other_ways_of_writing_a_file_give_the_same_rows(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode())
    assert sources.read(tmp_path / name) == ROWS


def test_a_cell_may_be_as_long_as_a_document(tmp_path):
    long = "x " * 100_000
    (tmp_path / "x.csv").write_text(f"prompt,completion\na,{long}\n")
    assert sources.read(tmp_path / "x.csv") == [{"prompt": "a", "completion": long}]


def test_one_pretty_printed_object_is_one_row(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"messages": [USER, A]}, indent=2))
    assert sources.read(tmp_path / "x.json") == [{"messages": [USER, A]}]
