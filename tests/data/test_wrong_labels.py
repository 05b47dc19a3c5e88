"""Labels inverted on purpose, in records; `tests/leaderboard/test_noise.py` looks at the draws."""

import pytest

from jalign.data.convert import to_records
from jalign.data.noise import Flip, assigned, flip, inverted

ROWS = [
    {"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}", "margin": m}
    for i, m in enumerate([0.4, -0.9, 0.1, 0.7, 0.2])
]


def read(rows, kind, noise, **options):
    return to_records(rows, kind, noise=noise, **options)


def test_the_tail_exchanges_the_responses_of_the_clearest_pairs_and_keeps_their_margins():
    records, report = read(ROWS, "pairs", Flip("tail", 0.4), numeric=set())
    assert [r.responses[0] for r in records] == ["c0", "r1", "c2", "r3", "c4"]
    assert [r.extras["margin"] for r in records] == [0.4, -0.9, 0.1, 0.7, 0.2]
    assert report.flipped == 2


def test_a_share_that_rounds_to_no_label_is_told():
    _, report = read(ROWS, "pairs", Flip("uniform", 0.05), numeric=set())
    assert report.warnings[-1] == "flip inverts nothing: 0.05 of the labels rounds to 0"


def test_both_thumbs_of_an_inverted_pair_are_wrong():
    records, _ = read(ROWS, "binary", Flip("tail", 0.2), numeric=set())
    labels = {r.responses[0]: r.extras["label"] for r in records}
    assert labels["c1"] == 0 and labels["r1"] == 1
    assert all(labels[f"c{i}"] == 1 and labels[f"r{i}"] == 0 for i in (0, 2, 3, 4))


def test_labels_of_their_own_are_inverted():
    rows = [{"prompt": "p", "completion": str(i), "label": i % 3 == 0} for i in range(10)]
    records, report = read(rows, "binary", Flip("uniform", 0.3, 4))
    wrong = inverted(range(10), "uniform", 0.3, 4)
    assert [bool(r.extras["label"]) for r in records] == [
        (i % 3 == 0) != w for i, w in enumerate(wrong)
    ]
    assert report.flipped == 3


def test_a_loss_that_reads_annotators_gets_those_whom_the_noise_made_wrong():
    rows = [{k: v for k, v in ROWS[i % 5].items() if k != "margin"} for i in range(200)]
    records, report = read(rows, "pairs", Flip("annotator", 0.1, 3), numeric={"annotator"})
    names = [report.annotators[r.extras["annotator"]] for r in records]
    assert names == [f"annotator {i:02}" for i in assigned(200, 3)]
    wrong = {n for n, r in zip(names, records, strict=True) if r.responses[0][0] == "r"}
    assert len(wrong) == 2
    assert all(
        (n in wrong) == (r.responses[0][0] == "r") for n, r in zip(names, records, strict=True)
    )
    plain, report = read(rows, "pairs", Flip("annotator", 0.1, 3), numeric=set())
    assert [r.responses for r in plain] == [r.responses for r in records] and not report.annotators


def test_annotators_of_the_data_are_the_ones_who_are_wrong():
    rows = [row | {"annotator": "ab"[i % 2]} for i, row in enumerate(ROWS)]
    records, report = read(rows, "pairs", Flip("annotator", 0.5), numeric={"annotator"})
    wrong = {r.extras["annotator"] for r in records if r.responses[0][0] == "r"}
    assert len(wrong) == 1 and report.annotators == ("a", "b")


def test_annotators_that_only_one_source_of_a_mixture_has_are_refused():
    named = to_records([ROWS[0] | {"annotator": "a"}], "pairs", numeric={"annotator"})[0]
    records, report = to_records([ROWS[1]], "pairs", numeric={"annotator"})
    named[0].extras["annotator"] = "a"  # as it is before names become numbers
    with pytest.raises(ValueError, match="flip annotator: row 0 has no annotator, which other"):
        flip([*named, *records], Flip("annotator", 0.5), named=True, report=report)


def test_what_cannot_be_inverted_is_refused():
    with pytest.raises(ValueError, match=r"flip tail .* row 0 has none"):
        read([ROWS[0] | {"margin": None}], "pairs", Flip("tail", 0.2), numeric=set())
    with pytest.raises(ValueError, match="flip inverts pairs and labels; row 0 is neither"):
        read([{"prompt": "p", "completion": "c"}], "supervised", Flip("uniform", 0.2))
