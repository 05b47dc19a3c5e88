import pytest

from jalign.data.convert import CONVERSIONS, convert, to_records
from jalign.data.records import MADE_FROM, Record

PAIR = Record("p", ["good", "bad"], {"margin": 2.0, "weight": 3.0}, row=7)
LIST = Record("p", ["a", "b", "c"], {"scores": [1.0, 3.0, 0.5]})


def test_the_recogniser_knows_every_conversion():
    assert {(a, b) for b, kinds in MADE_FROM.items() for a in kinds} == set(CONVERSIONS)


def test_a_pair_is_a_desirable_and_an_undesirable_response():
    good, bad = convert([PAIR], "pairs", "binary")
    assert (good.responses, good.extras) == (["good"], {"weight": 3.0, "label": 1.0})
    assert (bad.responses, bad.extras) == (["bad"], {"weight": 3.0, "label": 0.0})
    assert good.row == bad.row == 7


def test_a_list_is_its_best_against_its_worst_and_ties_are_nothing():
    (pair,) = convert([LIST], "lists", "pairs")
    assert pair.responses == ["b", "c"] and pair.extras == {"margin": 2.5}
    assert convert([LIST._replace(extras={"scores": [1.0] * 3})], "lists", "pairs") == []


def test_supervised_records_are_what_was_preferred():
    assert convert([PAIR], "pairs", "supervised")[0].responses == ["good"]
    assert convert([LIST], "lists", "supervised")[0].responses == ["b"]
    labelled = [Record("p", ["x"], {"label": x}) for x in (1.0, 0.0)]
    assert convert(labelled, "binary", "supervised") == [Record("p", ["x"], {})]


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
