"""The column of who gave a label."""

import io

import numpy as np
import pytest
from rich.console import Console

from jalign.data.convert import to_records
from jalign.data.report import render
from jalign.data.tokenize import tokenize
from jalign.data.write import to_rows

ROWS = [
    {"prompt": "how are you", "chosen": f" hello {i}", "rejected": " fox", "annotator": name}
    for i, name in enumerate(["zoe", 7, " bob ", "zoe"])
]


def test_names_and_numbers_become_places_in_the_sorted_names(plain):
    records, report = to_records(ROWS, "pairs", numeric={"annotator"})
    examples = tokenize(records, plain, report=report)
    assert report.annotators == ("7", "bob", "zoe")
    assert examples.extras["annotator"].tolist() == [2, 0, 1, 2]
    assert examples.extras["annotator"].dtype == np.int32


def test_a_loss_that_reads_no_annotators_leaves_the_column_alone():
    records, report = to_records(ROWS, "pairs", numeric={"margin"})
    assert "annotator" not in records[0].extras and not report.annotators
    assert "not read: annotator" in report.explanation


@pytest.mark.parametrize("gap", [None, "", True, 1.5])
def test_a_row_without_an_annotator_among_rows_that_have_one_is_an_error_or_dropped(gap):
    rows = [*ROWS, ROWS[0] | {"annotator": gap}]
    with pytest.raises(ValueError, match=r"row 4: (no annotator|annotator must be a name)"):
        to_records(rows, "pairs", numeric={"annotator"})
    records, report = to_records(rows, "pairs", numeric={"annotator"}, bad_rows="drop")
    assert len(records) == 4 and sum(report.dropped.values()) == 1


def test_data_without_the_column_have_no_annotators():
    rows = [{k: v for k, v in row.items() if k != "annotator"} for row in ROWS]
    assert "annotator" not in to_records(rows, "pairs", numeric={"annotator"})[0][0].extras


def test_both_responses_of_a_pair_keep_its_annotator_and_files_keep_the_names():
    records, report = to_records(ROWS, "binary")
    rows = to_rows(records, report.kind, report.attributes, report.annotators)
    assert [row["annotator"] for row in rows] == ["zoe"] * 2 + ["7"] * 2 + ["bob"] * 2 + ["zoe"] * 2
    assert [row["label"] for row in rows] == [True, False] * 4


def test_the_report_counts_the_examples_of_each_annotator(plain):
    records, report = to_records(ROWS, "pairs", numeric={"annotator"})
    console = Console(width=100, record=True, file=io.StringIO())
    render(tokenize(records, plain, report=report), plain, console)
    text = console.export_text()
    assert "3 annotators" in text
    assert text.index("zoe") < text.index("bob")  # the busiest first
