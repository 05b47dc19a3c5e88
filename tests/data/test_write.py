import json

import pytest

from jalign import embedded
from jalign.cli.data import add_options
from jalign.config.read import ConfigError, read_options
from jalign.data import sources
from jalign.data.convert import to_records
from jalign.data.write import to_rows, write
from jalign.run.data_text import save

USER, GOOD, BAD = (
    {"role": r, "content": c} for r, c in (("user", "u"), ("assistant", "a"), ("assistant", "b"))
)
PAIR = {"prompt": "p", "chosen": "good", "rejected": "bad"}

ROWS = {
    # what is read -> the kind that is wanted of it
    "supervised text": ([{"text": "a"}, {"text": "b"}], "supervised"),
    "supervised": ([{"question": "p", "answer": "c", "weight": 2}], "supervised"),
    "tools": (
        [{"messages": [USER, GOOD, USER, BAD], "tools": x} for x in (None, [{"name": "f"}])],
        "supervised",
    ),
    "pairs": ([PAIR | {"score_chosen": 2, "score_rejected": 1, "prob": 0.7}], "pairs"),
    "chat pairs": (
        [{"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, GOOD, USER, BAD]}],
        "pairs",
    ),
    "pairs without a prompt": ([PAIR | {"prompt": x} for x in ("", "p")], "pairs"),
    "pairs as binary": ([PAIR], "binary"),
    "pairs as lists": ([PAIR], "lists"),
    "binary": ([{"text": "t", "label": x, "density_ratio": 0.5} for x in (1, 0)], "binary"),
    "lists": ([{"prompt": [USER], "responses": ["a", "b", "c"], "ranks": [2, 1, 3]}], "lists"),
    "lists as rated": ([{"prompt": "p", "responses": ["a", "b"], "rewards": [2, 1]}], "rated"),
    "lists as pairs": ([{"prompt": "p", "responses": ["a", "b"], "rewards": [2, 1]}], "pairs"),
    "attributes": (
        [{"prompt": "p", "response": "c", "attributes": {"x": None, "y": 2}, "rating": 1}],
        "rated",
    ),
    "stepwise": ([{"prompt": "p", "completions": ["s", "t"], "labels": [1, 0.5]}], "stepwise"),
    "prompts": ([{"prompt": [USER]}, {"prompt": "p"}], "prompts"),
    "a mixture": ([PAIR | {"_source": "x"}, PAIR | {"_source": "y"}], "pairs"),
}


@pytest.mark.parametrize("case", ROWS)
@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_what_is_written_is_read_again_as_the_same_records(tmp_path, case, ending):
    rows, kind = ROWS[case]
    records, report = to_records(rows, kind)
    path = tmp_path / "new" / f"rows{ending}"
    write(path, to_rows(records, kind, report.attributes))
    again, read = to_records(sources.read(path), kind)
    assert read.kind == kind and (read.attributes, read.sources) == (
        report.attributes,
        report.sources,
    )

    # rows are numbered anew and stand in a file, and NaN is not itself
    def plain(found):
        new = {"row": 0, "place": ""}
        return [repr(r._replace(**new, extras=dict(sorted(r.extras.items())))) for r in found]

    assert plain(again) == plain(records)


def test_rows_of_the_kind_itself_can_be_recognized_without_a_wish():
    for name in ("pairs", "binary", "lists", "stepwise", "attributes", "supervised text"):
        rows, kind = ROWS[name]
        records, report = to_records(rows, kind)
        assert to_records(to_rows(records, kind, report.attributes))[1].kind == kind


def test_other_files_and_joint_records_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.jsonl or \.jsonl\.gz: .*rows\.csv"):
        write(tmp_path / "rows.csv", [])
    with pytest.raises(ValueError, match="'joint' has no columns of its own; there is: superv"):
        to_rows([], "joint")


class Terminal:
    def __init__(self):
        self.lines = []

    def print(self, text, **_):
        self.lines.append(text)


def convert_by_command(*args):
    config, options = read_options(
        ["--algorithm.name", "sft", *map(str, args)], "data", add_options
    )
    terminal = Terminal()
    save(config, options.to, terminal)
    return "\n".join(terminal.lines)


@pytest.mark.parametrize(
    ("to", "kind", "count"),
    [
        ("kto", "binary", 500),
        ("dpo", "pairs", 250),
        ("pair_rm", "pairs", 250),
        ("lists", "lists", 250),
    ],
)
def test_the_command_converts_all_of_the_training_data(tmp_path, to, kind, count):
    out = tmp_path / "out.jsonl.gz"
    train = embedded.pairs("test")
    said = convert_by_command("--data.train", train, "--to", to, "--out", out)
    assert f"{count} rows of {kind} data written to {out}" in said and "pairs, from the" in said
    rows = sources.read(out)
    assert len(rows) == count
    # the same prompts are held out of the new file as of the old one
    _, old = sources.split(sources.read(train), 0.2)
    _, new = sources.split(rows, 0.2)
    assert {r["prompt"] for r in new} == {r["prompt"] for r in old}


def test_the_command_filters_and_balances(tmp_path, write):
    labels = [1, 1, 1, 0]
    rows = [{"prompt": f"p{i}", "completion": "c", "label": x} for i, x in enumerate(labels)]
    train, out = write("train.jsonl", [*rows, rows[3]]), tmp_path / "out.jsonl"
    args = ["--data.train", train, "--to", "binary", "--out", out, "--data.balance", "true"]
    said = convert_by_command(*args, "--data.filters", '["no_duplicates"]')
    assert "dropped: 1 duplicate" in said and "dropped: 2 larger class, to balance" in said
    assert sorted(json.loads(line)["label"] for line in out.read_text().splitlines()) == [
        False,
        True,
    ]


def test_a_wish_that_cannot_be_fulfilled_is_refused(tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match="no kind of data 'pears'; did you mean 'pairs'"):
        convert_by_command("--to", "pears", "--out", out)
    with pytest.raises(ValueError, match=r"--to needs --out FILE\.jsonl or FILE\.jsonl\.gz, got"):
        convert_by_command("--to", "kto")
    with pytest.raises(ConfigError, match="no option 'to'"):
        read_options(["--algorithm.name", "sft", "--to", "kto"], "train")
