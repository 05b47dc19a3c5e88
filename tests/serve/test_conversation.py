"""A conversation: history, commands, two models side by side."""

import io
import json
from dataclasses import replace

import jax
import pytest
from flax import nnx

from jalign.data.templates import template_source
from jalign.options.serve import ChatConfig
from jalign.serve.conversation import Conversation
from jalign.serve.models import base_of, load_models
from jalign.serve.terminal import converse
from jalign.serve.types import Request
from tests._cli import call
from tests.serve._policy import LIMITS, embedded_policy, write_adapter

OPTIONS = ChatConfig(model="story", max_new_tokens=8, temperature=0.9, seed=3)


@pytest.fixture(scope="module")
def policy():
    policy = embedded_policy()
    policy.tokenizer.chat_template = template_source(policy.tokenizer, "hh")
    return policy


@pytest.fixture
def chat(policy):
    with Conversation({"story": policy}, OPTIONS, LIMITS) as chat:
        yield chat


@pytest.fixture
def beside(policy):
    decoder = nnx.clone(policy.decoder)
    nnx.update(decoder, jax.tree.map(lambda x: -x, nnx.state(decoder)))
    models = {"story": policy, "other": replace(policy, decoder=decoder)}
    with Conversation(models, OPTIONS, LIMITS) as chat:
        yield chat


def run(chat, *lines):
    """What is written, and the notes."""
    out, notes = [], []
    converse(chat, lines, out.append, notes.append)
    return "".join(out), notes


def roles(chat, name="story"):
    return [m["role"] for m in chat.messages[name]]


def test_an_answer_is_written_in_pieces_and_joins_the_history(chat):
    out = []
    converse(chat, ["Tell me of a dog.", "And a cat?"], out.append, print)
    assert len(out) > 4
    assert roles(chat) == ["user", "assistant"] * 2
    first, second = (m["content"] for m in chat.messages["story"] if m["role"] == "assistant")
    assert "".join(out) == f"{first}\n{second}\n"
    assert first != second


def test_the_history_is_what_the_model_reads(chat, policy):
    run(chat, "/system Be kind.", "Tell me of a dog.")
    answer = chat.messages["story"][-1]["content"]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        submit = chat._engine.submit
        patch.setattr(
            chat._engine, "submit", lambda rs, listen: (seen.extend(rs), submit(rs, listen))[1]
        )
        run(chat, "And a cat?")
    assert policy.tokenizer.decode(seen[0].prompt) == (
        f"<bos>Be kind.\n\nHuman: Tell me of a dog.\n\nAssistant: {answer}"
        "\n\nHuman: And a cat?\n\nAssistant:"
    )


def test_undo_takes_the_question_back_with_its_answer(chat):
    run(chat, "Tell me of a dog.")
    before = list(chat.messages["story"])
    _, notes = run(chat, "And a cat?", "/undo")
    assert notes == ["taken back: And a cat?"]
    assert chat.messages["story"] == before
    assert run(chat, "/undo", "/undo")[1][-1] == "nothing has been said"


def test_a_system_message_is_set_replaced_and_removed(chat):
    run(chat, "/system Be kind.", "Hello", "/system Be brief.")
    assert chat.messages["story"][0] == {"role": "system", "content": "Be brief."}
    assert roles(chat) == ["system", "user", "assistant"]
    _, notes = run(chat, "/system")
    assert notes == ["the system message is removed"]
    assert roles(chat) == ["user", "assistant"]


def test_a_conversation_is_saved_as_rows_to_train_on(chat, tmp_path):
    file = tmp_path / "talk" / "chat.jsonl"
    _, notes = run(chat, f"/save {file}", "Hello", f"/save {file}")
    assert notes == ["there is no answer to save", f"saved to {file}"]
    (row,) = map(json.loads, file.read_text().splitlines())
    assert row == {"model": "story", "messages": chat.messages["story"]}


def test_two_models_answer_and_each_reads_its_own_answers(beside):
    out, _ = run(beside, "Tell me of a dog.", "And a cat?")
    assert [line for line in out.splitlines() if line.startswith("--")] == [
        "-- story",
        "-- other",
    ] * 2
    mine, others = (beside.messages[name] for name in ("story", "other"))
    assert [m["content"] for m in mine[::2]] == [m["content"] for m in others[::2]]
    assert mine[1] != others[1]


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(beside):
    out = []

    def write(text):
        out.append(text)
        if len(out) == 3:  # the name, a piece, and at the next one Ctrl-C
            raise KeyboardInterrupt

    converse(beside, ["Tell me of a dog."], write, print)
    assert out[-1] == " (stopped)\n"
    assert beside.messages["story"][1]["content"].startswith(out[1])
    assert roles(beside) == roles(beside, "other") == ["user", "assistant"]
    assert run(beside, "And a cat?")[0].count("--") == 2


def test_without_a_template_the_text_goes_on(policy):
    plain = replace(policy, tokenizer=embedded_policy().tokenizer)
    with Conversation({"story": plain}, replace(OPTIONS, temperature=0.0), LIMITS) as chat:
        assert not chat.has_template("story")
        first, _ = run(chat, "Once upon a time there was a")
        second, _ = run(chat, " Then")
        text = f"Once upon a time there was a{first[:-1]} Then"
        ids = tuple(plain.tokenizer(text)["input_ids"])
        (want,) = chat._engine.complete([Request(prompt=ids, max_tokens=8, temperature=0)])
    assert second == f"{want.text}\n"


def test_a_conversation_longer_than_the_context_is_said_and_goes_on(chat):
    out, notes = run(chat, "Hello", "a b c d " * 40)
    assert len(notes) == 1 and "/undo takes back" in notes[0]
    assert roles(chat) == ["user", "assistant"]
    assert run(chat, "Hello")[0] != out


def test_unknown_commands_and_missing_words_are_said(chat):
    out, notes = run(chat, "/und", "/save", "/undo twice", "/help", "", "/quit", "Hello")
    assert notes[0] == "no command /und; did you mean '/undo'? (/help lists them)"
    assert notes[1:3] == ["/save needs a FILE", "/undo takes nothing, got 'twice'"]
    assert notes[3].startswith("/system TEXT")
    assert not out, "/quit ends it"


def test_a_line_with_two_slashes_is_a_message(chat):
    run(chat, "//help me")
    assert chat.messages["story"][0]["content"] == "/help me"


def test_the_command_answers_a_pipe(chat, capsys, monkeypatch):
    monkeypatch.setattr(Conversation, "load", lambda options, note: chat)
    monkeypatch.setattr("sys.stdin", io.StringIO("Tell me of a dog.\n/nothing\n"))
    code, printed = call(["chat", "story"], capsys)
    assert code == 0
    assert printed.out == chat.messages["story"][1]["content"] + "\n"
    assert "no command /nothing" in printed.err


def test_adapters_share_the_base_that_another_name_stands_for(tmp_path):
    write_adapter(tmp_path / "a", 1)
    policies, scorers = load_models({"base": "embedded", "a": str(tmp_path / "a")}, "hh")
    assert (list(policies), scorers) == (["base", "a"], {})
    base, reference = policies["base"].decoder, base_of(policies["a"]).decoder
    kernel = policies["a"].decoder.embed.weight[...]
    assert base.embed.weight[...] is kernel and reference.embed.weight[...] is kernel
    assert policies["a"].tokenizer.chat_template


def test_a_reward_model_is_nobody_to_talk_to(monkeypatch):
    scores = ({}, {"rm": None})
    monkeypatch.setattr("jalign.serve.conversation.load_models", lambda *args: scores)
    with pytest.raises(ValueError, match="rm scores responses and writes none"):
        Conversation.load(ChatConfig(model="rm"))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"temperature": 0.0, "top_k": 5}, "--temperature above 0"),
        ({"max_new_tokens": 0}, "--max_new_tokens must be at least 1"),
        ({"beside": "story"}, "another model, or reference"),
    ],
)
def test_options_that_contradict_each_other_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **change)
