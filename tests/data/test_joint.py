import pytest
from tiny_tokenizers import byte_level

from jalign import embedded
from jalign.data import sources
from jalign.data.chat import load_tokenizer
from jalign.data.convert import convert, to_records
from jalign.data.joint import both_orders, joint
from jalign.data.records import Record
from jalign.data.tokenize import tokenize

PAIR = Record("how are you ", [" hello world", " the quick fox"], {"margin": 1.0}, row=3)
USER, GOOD, BAD = (
    {"role": r, "content": c} for r, c in (("user", "u"), ("assistant", "a"), ("assistant", "b"))
)


@pytest.fixture(scope="module")
def stories():
    """The tokenizer of the embedded model, which has tokens for a letter behind a space."""
    return load_tokenizer(embedded.path())


def pairs(n):
    return [PAIR._replace(prompt=f"how are you {i}", row=i) for i in range(n)]


def test_a_joint_record_shows_both_candidates_and_is_answered_by_the_letter_of_the_better_one():
    first, second = both_orders(PAIR)
    assert first.prompt == (
        "[CONTEXT] how are you [RESPONSE A] hello world [RESPONSE B] the quick fox"
        "\n\nThe better response is"
    )
    assert "[RESPONSE A] the quick fox [RESPONSE B] hello world\n" in second.prompt
    assert (first.responses, second.responses) == (["A", "B"], ["B", "A"])
    assert first.extras == {"margin": 1.0} and first.row == 3 and first.joint


def test_the_chosen_response_stands_on_either_side_equally_often_and_always_on_the_same():
    made = convert(pairs(400), "pairs", "joint")
    as_a = sum(r.responses == ["A", "B"] for r in made)
    assert 160 < as_a < 240 and made == convert(pairs(400), "pairs", "joint")
    for pair, record in zip(pairs(400), made, strict=True):
        assert record in both_orders(pair)


def test_conversations_are_written_as_lines():
    context = [USER, GOOD, USER | {"content": " more "}]
    first, _ = both_orders(Record(context, [[GOOD], [BAD, USER, BAD]], {}))
    assert first.prompt.startswith("[CONTEXT] user: u\nassistant: a\nuser: more [RESPONSE A] a [")
    assert "[RESPONSE B] assistant: b\nuser: u\nassistant: b\n" in first.prompt
    calls = [{"role": "assistant", "content": "", "tool_calls": [{"name": "f"}]}]
    assert 'assistant: [{"name": "f"}] [' in both_orders(Record("p", [calls, "b"], {}))[0].prompt


def test_pairs_without_two_different_texts_say_nothing():
    for sides in (["a", " "], ["", "a"], ["a", "a "]):
        assert joint(PAIR._replace(responses=sides)) == []
    rows = [{"prompt": "p", "chosen": "a", "rejected": x} for x in ("a", "b")]
    records, report = to_records(rows, "joint")
    assert len(records) == 1 and report.dropped == {"nothing to learn as joint": 1}
    assert report.kind == "joint" and report.explanation.endswith("made into joint")


def test_the_answer_is_one_scored_token_without_eos(stories):
    records = convert(pairs(8), "pairs", "joint")
    examples = tokenize(records, stories)
    assert examples.k == 2 and len(examples) == 8
    for record, example in zip(records, examples, strict=True):
        prompt = stories.decode(example.prompt, skip_special_tokens=True)
        answers = [stories.decode(ids) for ids in example.responses]
        assert prompt == record.prompt and answers == [" " + x for x in record.responses]
        assert example.prompt[0] == stories.bos_token_id
        assert [len(ids) for ids in example.responses] == [1, 1]
        assert all(mask.all() for mask in example.scored)


def test_the_space_goes_to_the_prompt_where_the_tokenizer_has_no_letter_behind_a_space(
    plain, spaced
):
    for tokenizer in (plain, spaced):
        (example,) = tokenize(joint(PAIR), tokenizer)
        answers = [tokenizer.convert_ids_to_tokens(ids.tolist()) for ids in example.responses]
        assert sorted(answers) == [["A"], ["B"]]
        last = tokenizer.convert_ids_to_tokens(example.prompt.tolist())[-1]
        assert last in ("\u0120", "\u2581")


def test_a_tokenizer_without_tokens_for_the_letters_is_refused():
    tokenizer = byte_level(unk_token="<unk>")
    pieces = tokenizer.backend_tokenizer
    from tokenizers import normalizers

    pieces.normalizer = normalizers.Replace("A", "alpha")
    with pytest.raises(ValueError, match=r"answers A and B of one token each; .* 'l', 'p', 'h'"):
        tokenize(joint(PAIR), tokenizer)
    assert len(tokenize([PAIR], tokenizer)) == 1


def test_a_long_joint_prompt_is_dropped_and_counted_and_never_cut(stories):
    long = PAIR._replace(responses=["so " * 50, "no " * 50])
    records = [*joint(PAIR), *joint(long)]
    examples = tokenize(records, stories, max_prompt_len=64)
    assert len(examples) == 1 and examples.report.truncated_prompts == 0
    assert examples.report.dropped == {"over the length limits": 1}
    with pytest.raises(ValueError, match="over the limits max_prompt_len 64"):
        tokenize(records, stories, max_prompt_len=64, over_long="error")


@pytest.mark.parametrize("name", ["gpt2", "mistral_v1", "qwen2_5", "smollm2"])
def test_real_tokenizers_have_one_token_for_a_letter_behind_a_space(real, name):
    tokenizer = real(name)
    (example,) = tokenize(joint(PAIR), tokenizer)
    assert [len(ids) for ids in example.responses] == [1, 1]
    tokens = {tokenizer.convert_ids_to_tokens(int(ids[0])) for ids in example.responses}
    assert tokens in ({"\u0120A", "\u0120B"}, {"\u2581A", "\u2581B"})


def test_the_embedded_pairs_become_joint_examples(stories):
    records, report = to_records(sources.read(embedded.pairs("test")), "joint")
    examples = tokenize(records, stories, report=report)
    assert len(examples) > 240 and examples.extras["margin"].min() >= 0.4
