"""Rows of a test split are never trained on without being asked for."""

import json
from pathlib import PurePath

import pytest

from jalign.data import sources, splits


def found(*paths):
    of = splits.splits_of([PurePath(p) for p in paths])
    return [of[PurePath(p)] for p in paths]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("default/train/0000.jsonl", "train"),
        ("default/TEST/0000.jsonl", "test"),
        ("a/b/validation/c/0.parquet", "validation"),
        ("helpful_train.jsonl", "train"),
        ("helpful-test.jsonl.gz", "test"),
        ("x.test.jsonl", "test"),
        ("train-00000-of-00001.parquet", "train"),
        ("data/train-00000-of-00001-b3e2fa91.parquet", "train"),
        ("data/train_prefs-00000-of-00002.parquet", "train_prefs"),
        ("train_sft/0000.parquet", "train_sft"),
        ("partial-train/0000.parquet", "train"),
        ("train01.jsonl", "train"),
        ("train_data_v2.csv", "train"),
        ("Dev.json", "validation"),
        ("valid/a.jsonl", "validation"),
        ("eval/a.jsonl", "eval"),
        ("test/part-0001.jsonl", "test"),
        ("HelpfulTest.jsonl", "test"),
        ("held_out/0.jsonl", "test"),
        ("v1/split=test/part-0.jsonl", "test"),
        ("contest.jsonl", None),
        ("latest.jsonl", None),
        ("attestation/protest.jsonl", None),
        ("train_test_mixed.jsonl", None),
        ("unit_test_generation.jsonl", None),
        ("chat.jsonl", None),
    ],
)
def test_a_split_is_named_by_any_part_of_a_path_but_by_no_part_of_a_word(path, split):
    assert found(path) == [split]


def test_a_keyword_in_the_middle_counts_where_a_sibling_differs_in_nothing_else():
    assert found("hh_train_clean.jsonl", "hh_test_clean.jsonl") == ["train", "test"]
    assert found("hh_train_clean.jsonl", "hh_test_raw.jsonl") == [None, None]


def test_a_path_of_two_splits_is_refused_and_two_held_out_ones_are_not_training():
    with pytest.raises(ValueError, match=r"test.train\.jsonl is of several splits"):
        found("test/train.jsonl")
    assert splits.family(found("test/dev.jsonl")[0]) != "train"


def test_a_split_is_picked_by_its_name_or_as_the_only_one_of_its_family():
    assert splits.pick(["train", "train_sft", "test"], "train", "x") == "train"
    assert splits.pick(["train_sft", "test_sft"], "train", "x") == "train_sft"
    assert splits.pick(["train_sft", "train_gen"], "train-gen", "x") == "train_gen"
    assert splits.pick(["validation", "train"], "dev", "x") == "validation"
    with pytest.raises(ValueError, match=r"not mixed: train_gen, train_sft; name one: data\.split"):
        splits.pick(["train_sft", "train_gen", "test"], "train", "x")
    with pytest.raises(ValueError, match="no split 'train_sfd'; did you mean 'train_sft'"):
        splits.pick(["train_sft", "test"], "train_sfd", "x")


def test_the_held_out_split_is_the_one_that_belongs_to_the_training_split():
    there = ["train_prefs", "train_sft", "test_prefs", "test_sft"]
    assert splits.held_out(there, "train_prefs") == "test_prefs"
    assert splits.held_out(["train", "test", "validation"], "train") == "test"
    assert splits.held_out(["train", "dev"], "train") == "dev"
    assert splits.held_out(["train"], "train") is None


def rows(n, split):
    return "".join(
        json.dumps({"prompt": f"{split} {i}", "completion": "c"}) + "\n" for i in range(n)
    )


def folder(tmp_path, **files):
    for name, n in files.items():
        path = tmp_path / f"{name.replace('__', '/')}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rows(n, name))
    return tmp_path


def test_test_rows_of_a_nested_folder_are_not_trained_on(tmp_path):
    data = folder(tmp_path, default__train__0=4, default__test__0=2)
    assert len(sources.read(data)) == 4 and len(sources.read(data, "test")) == 2
    assert sources.split_names(data) == ["test", "train"]


def test_files_of_no_split_are_trained_on_beside_a_test_file_and_refused_beside_a_train_file(
    tmp_path,
):
    data = folder(tmp_path, chat=3, chat_test=2)
    assert len(sources.read(data)) == 3
    folder(tmp_path, train=1)
    with pytest.raises(ValueError, match=r"chat\.jsonl .* names no split, beside test, train"):
        sources.read(data)
    assert len(sources.read(data, "test")) == 2


def test_a_folder_of_test_files_alone_is_not_trained_on(tmp_path):
    with pytest.raises(ValueError, match=r"no split 'train'.* there is: test"):
        sources.read(folder(tmp_path, x_test=2))


def test_descriptions_and_hidden_files_beside_the_data_are_no_data(tmp_path):
    data = folder(tmp_path, train=3)
    (data / "dataset_infos.json").write_text('{"default": {"description": ""}}')
    (data / ".cache" / "huggingface").mkdir(parents=True)
    (data / ".cache" / "huggingface" / "other.jsonl").write_text(rows(9, "cached"))
    assert len(sources.read(data)) == 3


def test_splits_of_a_saved_dataset_dict_and_of_the_hub_go_by_the_same_rule(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list([{"prompt": f"p{i}", "completion": "c"} for i in range(3)])
    both = datasets.DatasetDict({"train_sft": data, "test_sft": data.select([0])})
    both.save_to_disk(tmp_path / "saved")
    assert len(sources.read(tmp_path / "saved")) == 3
    assert sources.split_names(tmp_path / "saved") == ["train_sft", "test_sft"]

    def load(name, config, split):
        if split not in both:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(both)}.')
        return both[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: list(both))
    assert len(sources.read("owner/name")) == 3 and len(sources.read("owner/name", "test")) == 1
    both["train_gen"] = data
    with pytest.raises(ValueError, match=r"not mixed: train_gen, train_sft; name one: data\.split"):
        sources.read("owner/name")
