import gzip
import json

import pytest

from jalign.data import sources
from jalign.data.records import Record, prompt_key

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(4)]


@pytest.mark.parametrize(
    "ending", ["jsonl", "json", "jsonl.gz", "json.gz", "csv", "csv.gz", "parquet"]
)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        pa = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        text = {
            "jsonl": "\n".join(map(json.dumps, ROWS)) + "\n",
            "json": json.dumps(ROWS, indent=1),
            "csv": "prompt,completion\n" + "".join(f"p{i},c{i}\n" for i in range(4)),
        }[ending.removesuffix(".gz")]
        write = gzip.open if ending.endswith(".gz") else open
        with write(path, "wt", encoding="utf-8") as file:
            file.write(text)
    assert sources.read(path) == ROWS == sources.read(str(path))


def test_a_json_file_of_lines_is_read_as_lines(write):
    assert sources.read(write("rows.json", ROWS)) == ROWS


def test_a_csv_field_may_hold_line_breaks(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"one\n\ntwo",1\n')
    assert sources.read(path) == [{"text": "one\n\ntwo", "label": "1"}]


def test_folders_saved_by_datasets_are_read_by_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data, "test": data.select([0])}).save_to_disk(tmp_path / "two")
    assert sources.read(tmp_path / "one") == ROWS == sources.read(tmp_path / "two")
    assert sources.read(tmp_path / "two", "test") == ROWS[:1]
    with pytest.raises(ValueError, match="no split 'tset'; did you mean 'test'"):
        sources.read(tmp_path / "two", "tset")
    assert sources.read(next((tmp_path / "one").glob("*.arrow"))) == ROWS


def test_a_folder_of_files_is_read_in_order_and_by_split(tmp_path, write):
    write("b.jsonl", ROWS[2:]), write("a.jsonl", ROWS[:2])
    assert sources.read(tmp_path) == ROWS
    write("train-0.jsonl", ROWS[:1]), write("test-0.jsonl", ROWS[1:2])
    assert sources.read(tmp_path, "test") == ROWS[1:2]
    with pytest.raises(ValueError, match="no split 'dev'; there is: test, train"):
        sources.read(tmp_path, "dev")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "rows.jsonl is empty"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "rows.jsonl, line 2: not UTF-8"),
        (b'{"a": 1}\n\n{"a": \n', "rows.jsonl, line 3: not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2: a row must be a JSON object, got list"),
        (b'{"a": 1}\n{"a": ' + b"[" * 99999, "line 2: not JSON"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        sources.read(path)


def test_other_errors_name_the_file(tmp_path, write):
    with pytest.raises(ValueError, match=r"no file .*trian\.jsonl; did you mean 'train\.jsonl'"):
        write("train.jsonl", ROWS)
        sources.read(tmp_path / "trian.jsonl")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(ValueError, match=r"x\.csv, line 3: not as many columns"):
        sources.read(tmp_path / "x.csv")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 99)[:-9])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz, after line .* damaged gzip"):
        sources.read(tmp_path / "cut.jsonl.gz")
    (tmp_path / "x.bin").write_text("")
    with pytest.raises(ValueError, match="unknown kind of file"):
        sources.read(tmp_path / "x.bin")


def test_a_name_on_the_hub_goes_to_datasets_with_its_config_and_split(monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *a, **k: asked.append((a, k)) or datasets.Dataset.from_list(ROWS),
    )
    assert sources.read("openai/gsm8k:main", "test") == ROWS
    assert asked == [(("openai/gsm8k", "main"), {"split": "test"})]


def test_weights_repeat_and_thin_out_sources_deterministically(write):
    a, b = (str(write(name, ROWS)) for name in ("a.jsonl", "b.jsonl"))
    rows = sources.mixture([(a, 2.25), (b, 0.5)])
    assert rows == sources.mixture([(a, 2.25), (b, 0.5)])
    of = {name: [r["prompt"] for r in rows if r["_source"] == name] for name in (a, b)}
    assert of[a][:8] == ["p0", "p1", "p2", "p3"] * 2 and len(of[a]) == 9 and len(set(of[b])) == 2
    for parts in ([(a, 0)], [(a, 1), (a, 1)]):
        with pytest.raises(ValueError, match=r"above 0|twice"):
            sources.mixture(parts)


def test_a_prompt_is_never_on_both_sides_of_a_split():
    rows = [{"prompt": f"p{i % 50}", "completion": str(i)} for i in range(200)]
    for holdout in (0.2, 21):
        train, held = sources.split(rows, holdout)
        assert len(train) + len(held) == 200 and len(held) >= 20
        assert not {r["prompt"] for r in train} & {r["prompt"] for r in held}
    assert sources.split(rows, 0.2) == sources.split(rows, 0.2) != sources.split(rows, 0.2, seed=1)


def test_a_fraction_keeps_every_row_on_its_side_when_rows_are_added():
    rows = [{"text": f"t{i}"} for i in range(100)]
    _, few = sources.split(rows[:50], 0.3)
    _, many = sources.split(rows, 0.3)
    assert [r for r in many if r in rows[:50]] == few


def test_splits_that_leave_a_side_empty_are_refused():
    for holdout in (0, 1.0, 4, -1):
        with pytest.raises(ValueError, match="holdout"):
            sources.split(ROWS, holdout)
    with pytest.raises(ValueError, match="one side empty"):
        sources.split([{"prompt": "same", "completion": "c"}] * 4, 2)


def test_prompt_keys_are_the_same_for_rows_and_their_records():
    row = {"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"}
    assert prompt_key(row) == prompt_key(Record("\n\nHuman: hi\n\nAssistant:", [], {}))
    assert prompt_key({"text": "a"}) != prompt_key({"text": "b"})
