import re

import pytest

from jalign.data import select
from jalign.data.convert import to_records
from jalign.data.examples import Report
from jalign.data.records import Record

PAIRS = [
    {"prompt": "p", "chosen": "good", "rejected": "bad", "margin": 2.0},
    {"prompt": "p", "chosen": "bad", "rejected": "good", "margin": -0.5},
    {"prompt": "p", "chosen": "good", "rejected": "other", "margin": 0.1},
    {"prompt": "q", "chosen": "good", "rejected": "bad", "margin": 1.0},
    {"prompt": "q ", "chosen": "good", "rejected": "bad", "margin": 3.0},
    {"prompt": "q", "chosen": "good and long", "rejected": "bad", "margin": 1.0},
]


def kept(rows, *filters, wanted="pairs", **options):
    records, report = to_records(rows, wanted, filters=filters, **options)
    return [r.row for r in records], report


def labeled(good, bad):
    labels = [1] * good + [0] * bad
    return [{"prompt": f"p{i}", "completion": "c", "label": x} for i, x in enumerate(labels)]


def test_pairs_of_a_small_margin_are_dropped_whatever_its_sign():
    rows, report = kept(PAIRS, "min_margin=0.5")
    assert rows == [0, 1, 3, 4, 5] and report.dropped == {"margin below 0.5": 1}
    bare = [{k: v for k, v in PAIRS[0].items() if k != "margin"}]
    with pytest.raises(ValueError, match=r"min_margin needs a column margin .* row 0 has none"):
        kept(bare, "min_margin=0.5")


def test_pairs_that_contradict_each_other_are_both_dropped():
    rows, report = kept(PAIRS, "no_conflicts")
    assert rows == [2, 3, 4, 5] and report.dropped == {"contradicts another record": 2}


def test_a_response_with_both_labels_contradicts_itself():
    rows = [{"prompt": "p", "completion": c, "label": x} for c, x in (("a", 1), ("a", 0), ("b", 0))]
    assert kept(rows, "no_conflicts", wanted="binary")[0] == [2]


def test_the_first_of_duplicates_stays():
    rows, report = kept(PAIRS, "no_duplicates")
    assert rows == [0, 1, 2, 3, 5] and report.dropped == {"duplicate": 1}
    rated = [{"text": "t", "rating": x} for x in (1, 2, 1)]
    assert kept(rated, "no_duplicates", wanted="rated")[0] == [0, 1]


def test_pairs_of_very_different_length_are_dropped():
    rows, report = kept(PAIRS, "length_ratio=4")
    assert rows == [0, 1, 2, 3, 4] and report.dropped == {"length ratio above 4": 1}
    messages = [[{"role": "assistant", "content": x}] for x in ("a", "aaaa")]
    check = select.max_length_ratio(3)
    assert check(Record([], messages, {})) == "length ratio above 3"
    assert check(Record("", ["aaa", "a"], {})) is True


def test_filters_work_one_after_the_other():
    rows, report = kept(PAIRS, "min_margin=1", "no_conflicts", "no_duplicates")
    assert rows == [0, 3, 5]  # the contradiction of row 0 is gone before it is looked at
    assert report.dropped == {"margin below 1": 2, "duplicate": 1}


def test_a_filter_looks_at_what_was_read_or_else_at_what_was_made():
    rows, report = kept(PAIRS, "no_conflicts", wanted="binary")
    assert rows == [2, 2, 3, 3, 4, 4, 5, 5] and report.dropped["contradicts another record"] == 2
    lists = [{"prompt": "p", "responses": ["a", "b"], "ratings": r} for r in ([1, 2], [2, 5])]
    assert kept(lists, "min_margin=2")[0] == [1]
    with pytest.raises(ValueError, match="min_margin is for pairs; this is binary, lists"):
        kept(lists, "min_margin=2", wanted="binary")


def test_contradictions_are_found_across_the_sources_of_a_mixture():
    rows = [PAIRS[0] | {"_source": "a"}, PAIRS[1] | {"_source": "b"}]
    assert kept(rows, "no_conflicts")[0] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_margn=1", "no filter 'min_margn'; did you mean 'min_margin'?; there is: min_margin"),
        ("min_margin", "min_margin needs a number >= 0: min_margin=3; got 'min_margin'"),
        ("min_margin=high", "needs a number >= 0"),
        ("min_margin=-1", "needs a number >= 0"),
        ("length_ratio=0.5", "needs a number >= 1"),
        ("length_ratio=nan", "needs a number >= 1"),
        ("no_conflicts=2", "no_conflicts takes no number, got 'no_conflicts=2'"),
    ],
)
def test_a_filter_that_is_written_wrongly_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        select.parse_filter(text)


def test_a_filter_of_ones_own_may_say_why_or_not():
    records, report = [Record("p", ["a"], {}), Record("q", ["b"], {})], Report()
    select.RULES["own"] = select.Rule(lambda *_: lambda r: r.prompt == "p", ("supervised",))
    try:
        assert select.keep(records, [select.parse_filter("own")], report) == records[:1]
    finally:
        del select.RULES["own"]
    assert report.dropped == {"own": 1}


def test_balance_drops_at_random_from_the_larger_class_and_keeps_the_order():
    rows, report = kept(labeled(3, 40), wanted="binary", balance=True)
    assert len(rows) == 6 and rows[:3] == [0, 1, 2] and rows == sorted(rows)
    assert rows[3:] != [3, 4, 5] and report.dropped == {"larger class, to balance": 37}
    assert kept(labeled(3, 40), wanted="binary", balance=True)[0] == rows
    assert kept(labeled(40, 3), wanted="binary", balance=True)[0][-3:] == [40, 41, 42]


def test_balance_that_cannot_apply_is_refused():
    with pytest.raises(ValueError, match="balance is for binary data, and this is pairs"):
        kept(PAIRS, balance=True)
    with pytest.raises(ValueError, match="3 desirable and 0 undesirable"):
        kept(labeled(3, 0), wanted="binary", balance=True)


@pytest.mark.parametrize(
    ("good", "bad", "weights", "words"),
    [
        (10, 10, (1, 1), None),
        (4, 3, (1, 1), None),
        (30, 10, (1, 2.5), None),
        (30, 10, (1, 1), "undesirable_weight from 2.25 to 3 "),
        (10, 30, (1, 1), "their ratio is 0.33, .* desirable_weight from 3 to 4 "),
        (9, 10, (1, 1), "9 desirable and 10 undesirable responses: .* from 1.12 to 1.48 "),
        (10, 10, (3, 1), "weights 3 and 1 their ratio is 3.00"),
        (10, 10, (1, 0), None),
        (5, 0, (1, 1), "every label is the same: 5 desirable, 0 undesirable"),
    ],
)
def test_unbalanced_labels_are_a_warning_with_the_weights_that_balance_them(
    good, bad, weights, words
):
    report = kept(labeled(good, bad), wanted="binary", weights=weights)[1]
    if words is None:
        assert report.warnings == []
    else:
        assert re.search(words, report.warnings[0])


def test_nobody_is_warned_whose_loss_has_no_weights():
    assert kept(labeled(9, 1), wanted="binary")[1].warnings == []
    assert kept(PAIRS, wanted="pairs", weights=(1, 1))[1].warnings == []
