"""Columns that mean something are read whatever the kind; all others are named."""

import json

import pytest

from jalign.data import sources
from jalign.data.convert import to_records
from jalign.data.kinds import NEEDS
from jalign.data.messages import messages_of

USER, REPLY, OTHER = (
    {"role": r, "content": c} for r, c in (("user", "u"), ("assistant", "a"), ("assistant", "b"))
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ROWS = {  # of each kind, as messages
    "supervised": {"messages": [USER, REPLY]},
    "pairs": {"prompt": [USER], "chosen": [REPLY], "rejected": [OTHER]},
    "binary": {"prompt": [USER], "completion": [REPLY], "label": True},
    "rated": {"prompt": [USER], "completion": [REPLY], "rating": 2},
    "lists": {"prompt": [USER], "responses": ["a", "b"], "ratings": [1, 2]},
    "stepwise": {"prompt": [USER], "completions": ["a", "b"], "labels": [1, 0]},
    "prompts": {"prompt": [USER]},
}
TEXT = {kind: row | {"prompt": "u"} for kind, row in ROWS.items() if kind != "supervised"}
TEXT |= {"supervised": {"prompt": "u", "completion": "a"}}
TEXT["pairs"] = {"prompt": "u", "chosen": "a", "rejected": "b"}
TEXT["binary"] = TEXT["supervised"] | {"label": 1}
TEXT["rated"] = TEXT["supervised"] | {"rating": 1}


def one(row, kind=None, **options):
    records, report = to_records([row], kind, **options)
    return records[0], report


def test_every_kind_is_here():
    assert set(ROWS) == set(TEXT) == set(NEEDS) - {"joint", "scored"}  # these have no columns


@pytest.mark.parametrize("kind", ROWS)
def test_tools_and_the_system_message_are_read_of_every_kind(kind):
    record, report = one(ROWS[kind] | {"tools": [TOOL], "system": "s", "images": ["x.png"]}, kind)
    assert record.tools == [TOOL]
    assert record.prompt == [{"role": "system", "content": "s"}, USER]
    assert "with tools, system" in report.explanation
    assert report.explanation.endswith("not read: images")
    assert report.warnings == ["images: only text is trained on"]


@pytest.mark.parametrize("kind", TEXT)
def test_a_system_text_stands_before_the_prompt_and_tools_of_a_text_are_named_as_not_read(kind):
    record, report = one(TEXT[kind] | {"system": "s", "tools": [TOOL], "id": 7, "note": None}, kind)
    assert record.prompt == ("s\n\nu" if isinstance(record.prompt, str) else record.prompt)
    assert record.prompt[0] == "s" or record.prompt[0]["content"] == "s"
    assert report.explanation.count("not read") == 1
    assert "id" in report.explanation.rpartition("not read: ")[2]
    assert "note" not in report.explanation  # it holds nothing


def test_a_system_column_that_contradicts_a_system_message_is_refused():
    messages = [{"role": "system", "content": "be kind"}, USER, REPLY]
    assert one({"messages": messages, "system": " be kind"})[0].prompt == messages[:2]
    with pytest.raises(ValueError, match="row 0: the column system and the system message"):
        one({"messages": messages, "system": "be rude"})


def test_history_and_input_of_alpaca_are_earlier_turns_and_a_part_of_the_question():
    row = {"instruction": "add", "input": "1", "output": "3", "history": [["say", "2"]]}
    assert one(row)[0].prompt == [
        {"role": "user", "content": "say"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "add\n\n1"},
    ]
    assert one(row | {"history": []})[0].prompt == "add\n\n1"
    assert one({"input": "q", "output": "a"})[0][:2] == ("q", ["a"])
    pair = {"input": "q", "chosen": "a", "rejected": "b"}
    assert one(pair)[0][:2] == ("q", ["a", "b"])
    beside = one({"prompt": "p", "input": "q", "completion": "a"})[1].explanation
    assert beside.endswith("not read: input")


@pytest.mark.parametrize(
    ("key", "no", "yes"),
    [("weight", 0, 1), ("weight", 0.0, "1"), ("train", False, True), ("loss", "false", True),
     ("masked", True, False), ("training", 0, 1)],
)  # fmt: skip
def test_a_message_that_is_not_trained_on_is_marked(key, no, yes):
    messages = [USER | {key: no}, REPLY | {key: no}, USER, OTHER | {key: yes}]
    assert messages_of(messages) == [USER, REPLY | {"train": False}, USER, OTHER]


def test_marks_that_cannot_be_followed_are_refused_or_a_warning():
    with pytest.raises(ValueError, match=r"weight of a message must be 0 or 1 .*, got 0\.5"):
        messages_of([USER, REPLY | {"weight": 0.5}])
    _, report = one({"messages": [USER | {"train": True}, REPLY]})
    assert "1 messages that are not the assistant's ask to be trained on" in report.warnings[0]


def test_rows_of_a_table_are_those_of_json_lines(tmp_path):
    """Arrow gives every object the keys of all objects of its column, as nulls."""
    pyarrow, parquet = (pytest.importorskip(n) for n in ("pyarrow", "pyarrow.parquet"))

    def call(name, arguments):
        calls = [{"id": "1", "function": {"name": name, "arguments": arguments}}]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    def tool(name, **properties):
        parameters = {"type": "object", "properties": properties}
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    tools = [tool("f", a={"type": "string", "enum": ["x"]}), tool("g", b={"type": "integer"})]
    rows = [
        {"messages": [USER, call("f", {"a": "x"}), REPLY], "tools": tools},
        {"messages": [USER, call("g", {"b": 1}), OTHER], "tools": tools[1:]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table, lines = (
        to_records(sources.read(tmp_path / f"x.{end}"))[0] for end in ("parquet", "jsonl")
    )
    assert [r[:4] for r in table] == [r[:4] for r in lines]
    assert [r.tools for r in table] == [tools, tools[1:]]


def test_arguments_in_json_text_are_objects_and_their_nulls_are_kept():
    def called(arguments):
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        return messages_of([USER, {"role": "assistant", "tool_calls": [call]}])[1]["tool_calls"]

    assert called('{"a": null}')[0]["function"]["arguments"] == {"a": None}
    assert called({"a": None, "b": [None, 1]})[0]["function"]["arguments"] == {"b": [None, 1]}
    assert called("no json")[0]["function"]["arguments"] == "no json"
    assert called(None)[0]["function"]["arguments"] == {}


@pytest.mark.parametrize(
    "tools",
    [[TOOL], TOOL, json.dumps([TOOL]), [json.dumps(TOOL)], [TOOL | {"strict": None}]],
)
def test_tools_may_be_objects_or_json_text(tools):
    assert one(ROWS["supervised"] | {"tools": tools})[0].tools == [TOOL]


def test_functions_of_before_tools_are_tools_and_their_calls_tool_calls():
    said = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    row = {"messages": [USER, said, {"role": "function", "name": "f", "content": "1"}, REPLY]}
    record, _ = one(row | {"functions": [TOOL["function"]]})
    assert record.tools == [TOOL]
    call, answer = record.responses[0][:2]
    assert call["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    assert answer["role"] == "tool"


def test_tools_that_are_no_schemas_are_refused_with_their_row():
    for tools, said in (
        ("{", "tools must be JSON"),
        ([3], "a tool must be an object"),
        (3, "list"),
    ):
        with pytest.raises(ValueError, match=f"row 0: .*{said}"):
            one(ROWS["supervised"] | {"tools": tools})
