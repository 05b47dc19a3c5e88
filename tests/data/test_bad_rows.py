"""One odd row is named with its place in its file, or left out and counted."""

import gzip
import json

import pytest

from jalign.data import sources
from jalign.data.convert import to_records

USER, REPLY = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
GOOD = {"prompt": "p", "completion": "c"}

BAD = [
    # (row, kind, why)
    ({"prompt": "a", "completion": "b \ud83d c"}, "supervised", r"a lone surrogate '\\ud83d'"),
    ({"messages": None}, "supervised", "messages is null"),
    ({"messages": "hi"}, "supervised", "messages must be a list"),
    ({"messages": [USER, REPLY | {"content": [{"type": "image"}]}]}, "supervised", "only text"),
    ({"messages": [REPLY]}, "supervised", "needs a message before the assistant's first"),
    ({"prompt": None, "completion": [REPLY]}, "supervised", "needs a message before"),
    ({"prompt": {"a": 1}, "completion": "c"}, "supervised", "not a message"),
    ({"prompt": 3, "completion": "c"}, "supervised", "prompt must be text or messages"),
    ({"instruction": "p", "input": 3, "output": "c"}, "supervised", "input must be text"),
    ({"prompt": "p", "completion": "c", "system": 3}, "supervised", "system must be text"),
    ({"prompt": "p", "completion": "c", "history": [3]}, "supervised", "history must be pairs"),
    ({"prompt": "p", "responses": "ab", "ratings": [1, 2]}, "lists", "responses must be a list"),
    ({"prompt": "p", "responses": ["a"], "ratings": None}, "lists", "no column 'ranks'"),
    ({"prompt": "p", "completions": None, "labels": [1]}, "stepwise", "steps must be a list"),
    ({"prompt": "p", "completion": "c", "label": None}, "binary", "label must be True or False"),
]  # fmt: skip


def good_of(kind):
    more = {"lists": {"responses": ["a", "b"], "ratings": [1, 2]}, "binary": {"label": 1}}
    more["stepwise"] = {"completions": ["a"], "labels": [1]}
    return GOOD | more.get(kind, {})


@pytest.mark.parametrize(("row", "kind", "why"), BAD)
def test_a_bad_row_is_named_with_file_row_and_line_or_dropped_and_counted(tmp_path, row, kind, why):
    rows = [good_of(kind)] * 3
    rows.insert(2, row)
    path = tmp_path / "x.jsonl"
    path.write_text("\n" + "".join(json.dumps(r) + "\n" for r in rows))
    read = sources.read(path)
    with pytest.raises(ValueError, match=rf"x\.jsonl, row 2 \(line 4\): .*{why}.*data\.bad_rows"):
        to_records(read, kind)
    records, report = to_records(read, kind, bad_rows="drop")
    assert len(records) == 3 and report.read == 4
    ((reason, count),) = report.dropped.items()
    assert reason.startswith("bad row: ") and count == 1


def test_the_row_of_the_file_is_named_on_both_sides_of_a_hold_out(tmp_path):
    rows = [GOOD | {"prompt": f"p{i}"} for i in range(60)]
    for bad in range(60):
        some = [*rows[:bad], {"prompt": "p", "completion": 3}, *rows[bad + 1 :]]
        (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, some)))
        read = sources.read(tmp_path / "x.jsonl")
        with pytest.raises(ValueError, match=rf"x\.jsonl, row {bad} \(line {bad + 1}\): comp"):
            sources.split(read, 0.3, wanted="supervised", bad_rows="error")
        train, held = sources.split(read, 0.3, wanted="supervised", bad_rows="drop")
        assert len(train) + len(held) == 60 and some[bad] in train
        if bad == 3:
            break


def test_lines_that_are_no_rows_are_dropped_and_counted_where_that_is_asked(tmp_path):
    lines = [json.dumps(GOOD).encode(), b'{"prompt": "p', b"[1]", b'{"prompt": "\xff"}']
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    _, report = to_records(sources.read(tmp_path / "x.jsonl", bad_rows="drop"), bad_rows="drop")
    assert report.dropped == {
        "bad row: not JSON": 1,
        "bad row: a row must be a JSON object": 1,
        "bad row: not UTF-8": 1,
    }
    (tmp_path / "x.csv").write_text("prompt,completion\np,c\np\n")
    _, report = to_records(sources.read(tmp_path / "x.csv", bad_rows="drop"), bad_rows="drop")
    assert report.dropped == {"bad row: not as many columns as the header": 1}


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.parquet", b"PAR0 nothing", "not a Parquet file"),
        ("x.arrow", b"nothing", "not an Arrow file"),
        ("x.parquet.gz", b"", "compressed inside"),
        ("x.jsonl.gz", b"no gzip", "damaged gzip"),
        (
            "x.jsonl.gz",
            gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:40] + b"\x00\x01",
            "damaged gzip",
        ),
        ("x.json", b"[]", "is empty"),
        ("x.json", b'[{"a": 1}, ', "not JSON"),
        ("x.csv", b'a,b\n"open,2\n', r"line 1: not CSV"),
        ("x.csv", b"a,b\n", "is empty"),
        ("x.tsv", "a\tb\né\t".encode("latin-1"), "line 2: not UTF-8"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{why}"):
        sources.read(tmp_path / name)


def test_keys_that_only_some_rows_have_are_null_in_the_others():
    rows = [GOOD, GOOD | {"source": "web", "system": "s"}]
    records, report = to_records(rows)
    assert [r.prompt for r in records] == ["p", "s\n\np"]
    assert report.explanation.endswith("with system; not read: source")


def test_a_misspelt_column_of_one_row_is_an_error_of_that_row():
    with pytest.raises(ValueError, match="row 1: no column 'completion'; did you mean"):
        to_records([GOOD, {"prompt": "p", "completoin": "c"}, GOOD], "supervised")


PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


def test_numbers_that_nobody_reads_need_not_be_numbers():
    words = PAIR | {"margin": "clearly better", "weight": "100 g", "score_chosen": 1}
    for numbers in (None, ("weight",)):
        records, report = to_records([words, PAIR], "pairs", numeric=numbers)
        assert [r.extras for r in records] == [{}, {}]
        assert report.explanation.endswith("not read: margin, weight, score_chosen")


def test_numbers_that_are_read_must_be_numbers_in_every_row():
    rows = [PAIR | {"margin": 1}, PAIR | {"margin": "wide"}]
    with pytest.raises(ValueError, match="row 1: margin must be a number, got 'wide'"):
        to_records(rows, "pairs", numeric=("margin",))
    with pytest.raises(ValueError, match="row 1: no margin, which other rows have"):
        to_records([rows[0], PAIR], "pairs", numeric=("margin",))
    scored = PAIR | {"chosen_score": 3, "rejected_score": 1}
    assert to_records([scored], "pairs", numeric=("margin",))[0][0].extras == {"margin": 2.0}
    weighed = [PAIR | {"weight": 2, "_source": "x"}, PAIR | {"_source": "y"}]
    records, _ = to_records(weighed, "pairs", numeric=("weight",))
    assert [r.extras["weight"] for r in records] == [2.0, 1.0]


def test_empty_prompts_are_dropped_and_counted_where_prompts_are_all_there_is():
    rows = [{"prompt": p} for p in ("p", None, " ", [{"role": "user", "content": None}], [USER])]
    records, report = to_records(rows, "prompts")
    assert [r.row for r in records] == [0, 4] and report.dropped == {"empty prompt": 3}
