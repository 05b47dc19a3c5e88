import numpy as np
import pytest

from jalign.data.convert import CONVERSIONS, convert, to_records
from jalign.data.kinds import MADE_FROM
from jalign.data.records import Record

PAIR = Record("p", ["good", "bad"], {"margin": 2.0, "weight": 3.0}, row=7)
LIST = Record("p", ["a", "b", "c"], {"ratings": [1.0, 3.0, 0.5], "weight": 2.0})
LABELLED = [Record("p", ["x"], {"label": x, "density_ratio": 1.0}) for x in (1.0, 0.0)]


def test_the_recognizer_knows_every_conversion():
    assert {(a, b) for b, kinds in MADE_FROM.items() for a in kinds} == set(CONVERSIONS)


def test_a_pair_is_a_desirable_and_an_undesirable_response():
    good, bad = convert([PAIR], "pairs", "binary")
    assert (good.responses, good.extras) == (["good"], {"weight": 3.0, "label": 1.0})
    assert (bad.responses, bad.extras) == (["bad"], {"weight": 3.0, "label": 0.0})
    assert good.row == bad.row == 7


def test_a_list_is_its_best_against_its_worst_and_ties_are_nothing():
    (pair,) = convert([LIST], "lists", "pairs")
    assert pair.responses == ["b", "c"] and pair.extras == {
        "margin": 2.5,
        "weight": 2.0,
        "chosen_win_rate": 2.5 / 3,  # above two of three and equal to itself
        "rejected_win_rate": 0.5 / 3,
    }
    for kind in ("pairs", "binary"):
        assert convert([LIST._replace(extras={"ratings": [0.1] * 3})], "lists", kind) == []


def test_a_pair_is_a_list_rated_1_and_0():
    (made,) = convert([PAIR], "pairs", "lists")
    assert made.responses == ["good", "bad"]
    assert made.extras == {"weight": 3.0, "ratings": [1.0, 0.0]}


def test_a_list_is_responses_above_and_below_its_mean_and_those_at_it_are_left_out():
    made = convert([LIST._replace(extras={"ratings": [1.0, 3.0, 2.0]})], "lists", "binary")
    assert [(r.responses, r.extras) for r in made] == [
        (["a"], {"label": 0.0}), (["b"], {"label": 1.0}),
    ]  # fmt: skip


def test_a_list_is_one_rated_response_after_the_other():
    made = convert([LIST], "lists", "rated")
    assert [r.responses[0] for r in made] == ["a", "b", "c"]
    assert [r.extras["rating"] for r in made] == [1.0, 3.0, 0.5]
    assert all(r.extras["weight"] == 2.0 and "ratings" not in r.extras for r in made)


def test_any_single_response_has_a_score():
    demonstration = Record("p", ["x"], {"weight": 2.0})
    for kind, record, scores in (
        ("rated", demonstration._replace(extras={"rating": 0.25}), [0.25]),
        ("binary", LABELLED[0], [1.0]),
        ("pairs", PAIR, [1.0, 0.0]),
        ("lists", LIST._replace(extras={"ratings": [0.5, 1.0, 0.0]}), [0.5, 1.0, 0.0]),
        ("supervised", demonstration, [1.0]),
    ):
        made = convert([record], kind, "scored")
        assert [r.extras["rating"] for r in made] == scores and all(
            len(r.responses) == 1 for r in made
        )
    with pytest.raises(
        ValueError, match=r"a score must be between 0 and 1, got rating 3\.0; rescale"
    ):
        convert([LIST], "lists", "scored")


def test_demonstrations_and_feedback_are_one_mixture_of_scores():
    rows = [
        {"prompt": "p", "completion": "shown", "_source": "sft"},
        {"prompt": "p", "chosen": "good", "rejected": "bad", "_source": "pairs"},
        {"prompt": "p", "completion": "liked", "label": True, "_source": "thumbs"},
        {"prompt": "p", "completion": "scored", "rating": 0.3, "_source": "scores"},
    ]
    records, report = to_records(rows, "scored", numeric=("rating",))
    scores = {r.responses[0].strip(): r.extras["rating"] for r in records}
    assert report.kind == "scored"
    assert scores == {"shown": 1.0, "good": 1.0, "bad": 0.0, "liked": 1.0, "scored": 0.3}


def test_a_label_is_a_rating_of_1_or_0():
    made = convert(LABELLED, "binary", "rated")
    assert [r.extras for r in made] == [{"rating": 1.0}, {"rating": 0.0}]


def test_supervised_records_are_what_was_preferred():
    assert convert([PAIR], "pairs", "supervised")[0].responses == ["good"]
    assert convert([LIST], "lists", "supervised")[0].responses == ["b"]
    assert convert(LABELLED, "binary", "supervised") == [Record("p", ["x"], {})]


def test_prompts_lose_their_responses():
    assert convert([PAIR], "pairs", "samples")[0][:3] == ("p", [], {})


def test_a_conversion_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="no conversion supervised to pairs; there is"):
        convert([PAIR], "supervised", "pairs")


def test_rows_become_records_with_their_number_and_errors_name_it():
    rows = [{"prompt": "p", "responses": ["a", "b"], "scores": s} for s in ([1, 2], [1, 1])]
    records, report = to_records(rows, "pairs")
    assert [r.row for r in records] == [0] and records[0].responses == ["b", "a"]
    assert (report.read, report.dropped) == (2, {"nothing to learn as pairs": 1})
    assert report.kind == "pairs" and report.explanation.endswith("made into pairs")
    with pytest.raises(ValueError, match="row 1: label must be"):
        to_records([{"text": "t", "label": x} for x in (1, "x")])


def test_sources_of_a_mixture_may_have_different_columns():
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "_source": "x"},
        {"question": "q", "responses": ["c", "d"], "ranks": [2, 1], "_source": "y"},
    ]
    records, report = to_records(rows, "pairs")
    assert [(r.source, r.responses) for r in records] == [("x", ["a", "b"]), ("y", ["d", "c"])]
    assert report.sources == ("x", "y") and "x: pairs" in report.explanation


def test_a_mixture_of_kinds_is_refused():
    with pytest.raises(ValueError, match="a mixture of different kinds"):
        to_records([{"text": "t", "_source": "a"}, {"prompt": "p", "_source": "b"}])


ATTRIBUTES = [{"good": 1, "long": None}, {"long": 2, "good": 3}, {"good": None, "long": None}]


def test_attributes_are_lists_of_one_order_whose_names_the_report_keeps():
    rows = [{"prompt": "p", "completion": "c", "attributes": a} for a in ATTRIBUTES]
    records, report = to_records(rows, "rated")
    assert report.attributes == ("good", "long")
    ratings = [r.extras["attribute_ratings"] for r in records]
    np.testing.assert_array_equal(ratings, [[1.0, np.nan], [3.0, 2.0]])
    assert report.dropped == {"no attribute is rated": 1}
    rows.append(rows[0] | {"attributes": {"good": 1}})
    with pytest.raises(ValueError, match="row 3 rates good, the rows before it good, long"):
        to_records(rows, "rated")


def test_a_rating_beside_attributes_keeps_a_row_that_has_none_of_them():
    rows = [{"text": "t", "attributes": a, "rating": 1} for a in ATTRIBUTES]
    records, report = to_records(rows, "rated")
    assert len(records) == 3 and not report.dropped
    assert set(records[0].extras) == {"rating", "attribute_ratings"}
