"""From the `data` section of a config to rows and examples."""

import json
from dataclasses import replace

import pytest

from jalign.algorithms import get
from jalign.config import Config, DataConfig
from jalign.config.build import options_of
from jalign.run import data as build_data
from tests.data.tiny_tokenizers import byte_level

SFT = options_of(Config(algorithm={"name": "sft"}))


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def questions(n, word="q"):
    return [{"prompt": f"{word} {i}", "completion": f"answer {i}"} for i in range(n)]


def rows_of(**data):
    return build_data.all_rows(replace(SFT, data=DataConfig(**data)))


def test_the_test_split_of_a_folder_is_held_out_where_nothing_is_said(tmp_path):
    write(tmp_path / "default" / "train" / "0.jsonl", questions(4))
    write(tmp_path / "default" / "test" / "0.jsonl", questions(2, "t"))
    train, held = rows_of(train=str(tmp_path))
    assert ([*train], [*held]) == (questions(4), questions(2, "t"))
    train, held = rows_of(train=str(tmp_path), holdout=1)
    assert len(train) == 3 and held[0] in questions(4)
    assert build_data.described_splits(DataConfig(train=str(tmp_path))) == [
        f"{tmp_path}: trained on train; there is also test",
        f"held out: the split test of {tmp_path}",
    ]


def test_a_split_family_needs_data_split_and_its_own_test_split_is_held_out(tmp_path):
    for name in ("train_sft", "train_prefs", "test_prefs", "test_sft"):
        write(tmp_path / "data" / f"{name}-00000-of-00001.jsonl", questions(3, name))
    with pytest.raises(ValueError, match=r"train_prefs, train_sft; name one: data\.split"):
        rows_of(train=str(tmp_path))
    train, held = rows_of(train=str(tmp_path), split="train_prefs")
    assert [*train] == questions(3, "train_prefs") and [*held] == questions(3, "test_prefs")
    _, held = rows_of(train=str(tmp_path), split="train_prefs", eval_split="test_sft")
    assert [*held] == questions(3, "test_sft")


def test_a_split_of_what_has_none_is_refused(tmp_path):
    file = write(tmp_path / "train.jsonl", questions(3))
    for train in (file, "embedded"):
        with pytest.raises(ValueError, match=r"data\.split does not apply"):
            rows_of(train=train, split="train_prefs")
    with pytest.raises(ValueError, match=r"data\.eval_split needs data\.eval"):
        rows_of(train=file, eval_split="dev")


def test_columns_are_renamed_before_rows_are_held_out(tmp_path):
    rows = [{"q": f"q {i}", "good": "a", "bad": "b"} for i in range(40)]
    data = DataConfig(
        train=write(tmp_path / "x.jsonl", rows),
        columns={"prompt": "q", "chosen": "good", "rejected": "bad"},
    )
    train, held = build_data.all_rows(options_of(Config(algorithm={"name": "dpo"}, data=data)))
    assert len(train) + len(held) == 40 and held
    assert set(held[0]) == {"prompt", "chosen", "rejected"}


def test_no_hold_out_beside_held_out_data_is_no_contradiction(tmp_path):
    train, held = (write(tmp_path / n, questions(3, n)) for n in ("a.jsonl", "b.jsonl"))
    assert [len(x) for x in rows_of(train=train, eval=held, holdout=0)] == [3, 3]
    with pytest.raises(ValueError, match=r"data\.holdout does not apply"):
        Config(algorithm={"name": "sft"}, data=DataConfig(train=train, eval=held, holdout=1))


def test_rows_that_the_chat_template_refuses_are_named_as_in_the_file_or_counted(tmp_path):
    chat = [[{"role": "user", "content": f"q {i}"}] for i in range(20)]
    chat[13].append({"role": "user", "content": "and"})
    rows = [{"prompt": messages, "completion": "a"} for messages in chat]
    file = write(tmp_path / "x.jsonl", rows)
    strict = (
        "{% for m in messages %}{% if m.content == 'and' %}{{ raise_exception('no') }}{% endif %}"
    )
    strict += "{{ m.role + m.content }}{% endfor %}"
    (tmp_path / "strict.jinja").write_text(strict)
    data = DataConfig(train=file, template=str(tmp_path / "strict.jinja"), holdout=3)
    with pytest.raises(
        ValueError, match=r"x\.jsonl, row 13 \(line 14\): the chat template refuses"
    ):
        build_data.examples_of(replace(SFT, data=data), byte_level())
    both = build_data.examples_of(replace(SFT, data=replace(data, bad_rows="drop")), byte_level())
    dropped = [reason for part in both if part for reason in part.report.dropped]
    assert len(dropped) == 1 and dropped[0].startswith("bad row: the chat template refuses")


def test_rows_in_memory_are_loaded_like_those_of_a_file(tmp_path):
    rows, tokenizer = questions(40), byte_level()
    file = write(tmp_path / "x.jsonl", rows)
    from_file = build_data.load(replace(SFT, data=DataConfig(train=file)), tokenizer)
    from_memory = build_data.load(SFT, tokenizer, train=rows)
    assert [*from_memory.held_rows] == [*from_file.held_rows] and from_memory.held_rows
    assert from_memory.examples.fingerprint == from_file.examples.fingerprint
    assert from_memory.held.fingerprint == from_file.held.fingerprint


def test_held_out_rows_in_memory_leave_all_others_to_training(tmp_path):
    held = questions(2, "t")
    file = write(tmp_path / "x.jsonl", questions(40))
    for train, data in ((None, DataConfig(train=file)), (questions(40), SFT.data)):
        loaded = build_data.load(replace(SFT, data=data), byte_level(), train, held)
        assert (len(loaded.examples), len(loaded.held)) == (40, 2)
        assert [*loaded.held_rows] == held
    few = replace(SFT, data=DataConfig(limit=3, eval_limit=1))
    loaded = build_data.load(few, byte_level(), questions(40), held)
    assert (len(loaded.examples), len(loaded.held)) == (3, 1)
    file = write(tmp_path / "y.jsonl", held)
    loaded = build_data.load(replace(SFT, data=DataConfig(eval=file)), byte_level(), questions(4))
    assert (len(loaded.examples), len(loaded.held)) == (4, 2)


def test_texts_and_messages_in_memory_are_rows():
    grpo = replace(SFT, algorithm=get("grpo"), data=DataConfig(holdout=0))
    messages = [{"role": "user", "content": "hi"}]
    assert build_data.as_rows(["a", messages, {"question": "b"}], grpo) == [
        {"prompt": "a"},
        {"prompt": messages},
        {"question": "b"},
    ]
    assert build_data.as_rows(["a", messages], SFT) == [{"text": "a"}, {"messages": messages}]
    renamed = replace(SFT, data=DataConfig(columns={"completion": "good"}))
    assert build_data.as_rows([{"prompt": "a", "good": "b"}], renamed) == [
        {"prompt": "a", "completion": "b"}
    ]
    assert build_data.load(grpo, byte_level(), ["a", "bc"]).held is None
