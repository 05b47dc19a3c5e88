import numpy as np
import pytest

from jalign.data import convert, sources
from jalign.data.records import Record
from jalign.data.tokenize import Encoder, tokenize

USER = {"role": "user", "content": "how are you"}
GOOD = {"role": "assistant", "content": "hello world"}
BAD = {"role": "assistant", "content": "the quick fox"}
TEXT_PAIR = Record("how are you", [" hello world", " the quick fox"], {})
CHAT_PAIR = Record([USER], [[GOOD], [BAD]], {})
STORY = Record("", ["hello world how are you"], {})


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def names(tokenizer, array):
    return tokenizer.convert_ids_to_tokens(array.tolist())


def decoded(tokenizer, array):
    return tokenizer.decode(array.tolist())


# BOS


def test_bos_stands_once_first_in_the_prompt_and_never_before_a_response(with_bos):
    (example,) = tokenize([TEXT_PAIR], with_bos)
    assert names(with_bos, example.prompt).count("<s>") == 1 and example.prompt[0] == 2
    assert all(2 not in response for response in example.responses)


def test_bos_is_not_doubled_on_text_that_was_templated_already(with_bos):
    (example,) = tokenize([TEXT_PAIR._replace(prompt="<s>how are you")], with_bos)
    assert names(with_bos, example.prompt).count("<s>") == 1


def test_bos_is_not_doubled_when_the_chat_template_writes_it(with_bos, tmp_path):
    path = tmp_path / "own.jinja"
    path.write_text("{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}")
    (example,) = tokenize([CHAT_PAIR], with_bos, template=str(path))
    assert names(with_bos, example.prompt).count("<s>") == 1


def test_a_tokenizer_that_does_not_put_a_bos_first_gets_none(plain, chatml):
    assert decoded(plain, tokenize([TEXT_PAIR], plain)[0].prompt) == "how are you"
    assert chatml.bos_token is None
    assert tokenize([TEXT_PAIR], chatml)[0].prompt.tolist() == ids(chatml, "how are you")


def test_a_prompt_cut_at_the_front_keeps_its_bos_first(with_bos):
    (whole,) = tokenize([TEXT_PAIR], with_bos)
    (cut,) = tokenize([TEXT_PAIR], with_bos, max_prompt_len=3)
    assert cut.prompt.tolist() == [2, *whole.prompt[-2:].tolist()]
    (least,) = tokenize([TEXT_PAIR], with_bos, max_prompt_len=1)
    assert least.prompt.tolist() == [2]


# EOS


def test_eos_is_part_of_every_response_and_scored(plain):
    (example,) = tokenize([TEXT_PAIR], plain)
    for response, scored in zip(example.responses, example.scored, strict=True):
        assert response[-1] == plain.eos_token_id and scored.all()


def test_a_cut_response_has_no_eos_which_would_claim_that_it_ended_there(plain):
    pair = TEXT_PAIR._replace(responses=[" hello world how are you", " fox"])
    (whole,) = tokenize([pair], plain)
    (cut,) = tokenize([pair], plain, max_response_len=3)
    assert cut.responses[0].tolist() == whole.responses[0][:3].tolist()
    assert plain.eos_token_id not in cut.responses[0] and cut.scored[0].all()
    assert (
        cut.responses[1].tolist() == whole.responses[1].tolist()
    )  # within the limit: with its EOS


def test_keep_eos_ends_a_cut_response_as_if_it_ended_there(plain):
    (whole,) = tokenize([TEXT_PAIR], plain)
    (cut,) = tokenize([TEXT_PAIR], plain, max_response_len=3, keep_eos=True)
    for long, short in zip(whole.responses, cut.responses, strict=True):
        n = min(len(long), 3)
        assert short.tolist() == [*long[: n - 1].tolist(), plain.eos_token_id]


def test_what_limits_cost_is_counted_and_said_with_the_key_to_raise(plain, chatml):
    long = Record("hello", [" the quick brown fox"], {})  # 4 words and an EOS
    report = tokenize(
        [long, TEXT_PAIR._replace(responses=[" fox"])], plain, max_response_len=3
    ).report
    assert (report.truncated_responses, report.lost_tokens, report.lost_turns) == (1, 2, 0)
    (warning,) = report.warnings
    assert warning.startswith(
        "1 of 2 responses (50.0 %) are over the limits (max_response_len 3): 2"
    )
    assert "longest has 5 tokens: raise data.max_response_len" in warning
    turns = [{"role": r, "content": "fox"} for r in ("user", "assistant") * 3]
    talk = Record(turns[:1], [turns[1:]], {})
    report = tokenize([talk], chatml, loss_turns="all", max_response_len=3).report
    assert report.lost_turns == 2 and " and 2 turns or steps " in report.warnings[0]
    report = tokenize([Record("the quick brown fox", [" fox"], {})], plain, max_prompt_len=2).report
    assert report.warnings[0].endswith("the longest has 4 tokens: raise data.max_prompt_len")
    assert (
        tokenize([TEXT_PAIR], plain, max_response_len=50, max_prompt_len=50).report.warnings == []
    )


def test_pad_equal_to_eos_does_not_mask_the_real_eos():
    from tiny_tokenizers import byte_level

    tokenizer = byte_level(pad_token="</s>")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    (example,) = tokenize([TEXT_PAIR], tokenizer)
    assert example.responses[0][-1] == tokenizer.eos_token_id and example.scored[0][-1]


def test_eos_is_not_doubled_on_a_text_that_ends_with_it(plain):
    (example,) = tokenize([TEXT_PAIR._replace(responses=[" hello</s>", " fox"])], plain)
    assert names(plain, example.responses[0]).count("</s>") == 1


def test_a_template_that_ends_turns_itself_gets_no_second_eos(chatml):
    (example,) = tokenize([CHAT_PAIR], chatml)
    assert decoded(chatml, example.responses[0]) == "hello world<|im_end|>"
    assert decoded(chatml, example.prompt).endswith("<|im_start|>assistant\n")


def test_keep_eos_keeps_the_end_of_turn_of_a_template(chatml):
    (example,) = tokenize([CHAT_PAIR], chatml, max_response_len=2, keep_eos=True)
    assert names(chatml, example.responses[0])[-1] == "<|im_end|>"


def test_a_tokenizer_without_eos_is_refused():
    from tiny_tokenizers import byte_level

    with pytest.raises(ValueError, match="no EOS token"):
        tokenize([TEXT_PAIR], byte_level(eos_token=None))


# Borders


def test_bpe_never_merges_across_the_border(plain):
    assert len(ids(plain, "hello")) == 1
    (example,) = tokenize([Record("hel", ["lo", "lo world"], {})], plain)
    assert decoded(plain, example.prompt) == "hel"
    assert decoded(plain, example.responses[0][:-1]) == "lo"


def test_a_continuation_gets_no_extra_space_from_sentencepiece(spaced):
    assert names(spaced, np.array(ids(spaced, " hello"))) == ["\u2581", "\u2581hello"]
    (example,) = tokenize([Record("how", [" hello", "hello"], {})], spaced)
    assert names(spaced, example.prompt)[:1] == ["<s>"]
    assert names(spaced, example.responses[0]) == ["\u2581hello", "</s>"]
    assert "".join(names(spaced, example.responses[1])) == "hello</s>"


def test_a_text_keeps_the_space_that_its_tokenizer_starts_with(spaced):
    (example,) = tokenize([STORY], spaced)
    assert names(spaced, example.prompt) == ["<s>"]
    assert example.responses[0].tolist() == [*ids(spaced, STORY.responses[0]), 3]


# What is scored


def test_a_text_without_bos_has_an_unscored_first_token_and_an_empty_prompt(plain):
    (example,) = tokenize([STORY], plain)
    assert len(example.prompt) == 0
    assert example.scored[0].tolist() == [False] + [True] * (len(example.responses[0]) - 1)


def test_train_on_all_scores_the_prompt_too(with_bos, plain):
    record = Record("how are you", [" hello world"], {})
    for tokenizer, head in ((with_bos, [2]), (plain, [])):
        (part,), (full,) = (tokenize([record], tokenizer, loss_on=x) for x in ("response", "all"))
        assert full.prompt.tolist() == head
        np.testing.assert_array_equal(
            np.concatenate([full.prompt, full.responses[0]]),
            np.concatenate([part.prompt, part.responses[0]]),
        )
        assert full.scored[0][1:].all() and full.scored[0][0] == bool(head)
    with pytest.raises(ValueError, match="supervised data"):
        tokenize([TEXT_PAIR], plain, loss_on="all")


def test_all_turns_are_scored_and_what_the_user_says_between_them_is_not(chatml):
    record = Record([USER], [[GOOD, USER, BAD]], {})
    (last,), (every,) = (tokenize([record], chatml, loss_turns=t) for t in ("last", "all"))
    assert decoded(chatml, last.responses[0]) == "the quick fox<|im_end|>" and last.scored[0].all()
    kept = every.responses[0][every.scored[0]]
    assert decoded(chatml, kept) == "hello world<|im_end|>the quick fox<|im_end|>"
    np.testing.assert_array_equal(
        np.concatenate([last.prompt, last.responses[0]]),
        np.concatenate([every.prompt, every.responses[0]]),
    )


def test_steps_are_scored_at_their_last_token_in_line_with_their_labels(plain):
    record = Record("how", [["hello world", "the fox", "you"]], {"step_labels": [1.0, 1.0, 0.0]})
    (example,) = tokenize([record], plain)
    assert names(plain, example.responses[0][example.scored[0]]) == ["\u010a"] * 3
    assert example.extras["step_labels"].tolist() == [1, 1, 0]
    n = len(example.responses[0])
    (cut,) = tokenize([record], plain, max_response_len=n - 1)
    assert cut.extras["step_labels"].tolist() == [1, 1] == cut.scored[0][cut.scored[0]].tolist()


# Too long, equal, empty


def test_a_response_cut_to_nothing_is_dropped_and_counted(chatml):
    # Only the user's turn and what stood before it fit: nothing that is scored is left.
    record = Record([USER], [[GOOD, USER, BAD], [GOOD, USER, GOOD]], {})
    examples = tokenize([record], chatml, max_response_len=4)
    assert len(examples) == 0 and examples.report.dropped == {"response cut to nothing": 1}


def test_equal_pairs_and_empty_responses_are_dropped_and_counted(plain):
    records = [
        TEXT_PAIR,
        TEXT_PAIR._replace(responses=[" hello", " hello"]),
        TEXT_PAIR._replace(responses=["", " hello"]),
        TEXT_PAIR._replace(responses=[" hello", " \n"]),
    ]
    report = tokenize(records, plain).report
    assert report.dropped == {"equal responses": 1, "empty response": 2}
    assert (report.read, report.kept) == (4, 1)


def test_pairs_that_truncation_makes_equal_are_dropped(plain):
    pair = TEXT_PAIR._replace(responses=[" hello world how", " hello world you"])
    assert tokenize([pair], plain, max_response_len=3).report.dropped == {"equal responses": 1}


def test_max_len_cuts_the_prompt_first_but_not_below_half(plain):
    record = Record("the " * 50, [" hello" * 6], {})
    r = tokenize([record], plain).lengths.response_lens.item()
    lengths = tokenize([record], plain, max_len=2 * r + 4).lengths
    assert (lengths.prompt_len.item(), lengths.response_lens.item()) == (r + 4, r)
    lengths = tokenize([record], plain, max_len=2 * r - 4).lengths
    assert (lengths.prompt_len.item(), lengths.response_lens.item()) == (r - 2, r - 2)


def test_over_long_records_can_be_dropped_or_refused(plain):
    examples = tokenize([TEXT_PAIR], plain, max_len=5, over_long="drop")
    assert len(examples) == 0 and examples.report.dropped == {"over the length limits": 1}
    with pytest.raises(ValueError, match=r"row 7: prompt of \d+ .* max_len 5"):
        tokenize([TEXT_PAIR._replace(row=7)], plain, max_len=5, over_long="error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over_long": "trunkate"}, "did you mean 'truncate'"),
        ({"loss_turns": "every"}, "must be one of last, all"),
        ({"loss_on": "respons"}, "did you mean 'response'"),
        ({"max_response_len": 1}, "at least 2"),
        ({"template": "hh"}, "cannot apply: the data is text"),
        ({"loss_turns": "all"}, "cannot apply: the data is text"),
    ],
)
def test_an_option_that_cannot_apply_is_an_error(plain, options, message):
    with pytest.raises(ValueError, match=message):
        tokenize([TEXT_PAIR], plain, **options)


# Extras and report


def test_extras_rows_and_sources_come_along(plain):
    rows = [{"prompt": "how", "chosen": " hello", "rejected": " fox", "margin": 1.5}]
    rows = [row | {"_source": name} for name in ("b", "a") for row in rows]
    records, report = convert.to_records(rows, "pairs")
    examples = tokenize(records, plain, report=report)
    assert examples.report.sources == ("a", "b")
    assert examples.extras["source"].tolist() == [1, 0] and examples.extras["row"].tolist() == [
        0,
        1,
    ]
    assert examples.extras["margin"].tolist() == [1.5, 1.5]
    assert examples.extras["margin"].dtype == np.float32


def test_attribute_ratings_are_one_array_and_ratings_one_per_response(plain):
    rows = [
        {"prompt": "how", "response": f" hello{' you' * i}", "attributes": {"a": i, "b": None}}
        for i in range(3)
    ]
    records, report = convert.to_records(rows, "rated")
    examples = tokenize(records, plain, report=report)
    found = examples.extras["attribute_ratings"]
    assert found.dtype == np.float32 and examples.report.attributes == ("a", "b")
    np.testing.assert_array_equal(found, [[0, np.nan], [1, np.nan], [2, np.nan]])
    lists = [{"prompt": "how", "responses": [" hello", " you"], "ranks": [2, 1]}]
    examples = tokenize(convert.to_records(lists, "lists")[0], plain)
    assert examples.k == 2 and examples.extras["ratings"].tolist() == [[-2.0, -1.0]]


def test_an_extra_that_only_some_records_have_is_refused(plain):
    with pytest.raises(ValueError, match="margin: given for some records and not for others"):
        tokenize([TEXT_PAIR, TEXT_PAIR._replace(extras={"margin": 1.0})], plain)


def test_the_report_adds_up(plain):
    examples = tokenize([TEXT_PAIR, STORY._replace(responses=[" hello how", " fox you"])], plain)
    lengths, report = examples.lengths, examples.report
    assert report.kept == len(examples) == 2
    assert report.prompt_tokens == lengths.prompt_len.sum()
    assert report.response_tokens == lengths.response_lens.sum() == report.scored_tokens + 2


def test_prompts_alone_are_open_for_the_assistant(chatml):
    (example,) = tokenize([Record([USER], [], {})], chatml)
    assert example.responses == () and decoded(chatml, example.prompt).endswith("assistant\n")


def test_more_records_than_one_chunk_keep_their_order(plain, monkeypatch):
    monkeypatch.setattr("jalign.data.tokenize.CHUNK", 2)
    records = [TEXT_PAIR._replace(prompt="hello " * i, row=i) for i in range(1, 6)]
    assert tokenize(records, plain).extras["row"].tolist() == [1, 2, 3, 4, 5]


# Real tokenizers and data


@pytest.mark.parametrize("name", ["gpt2", "mistral_v1", "qwen2_5", "smollm2"])
def test_real_tokenizers_put_at_most_one_bos_and_one_eos(real, name):
    tokenizer = real(name)
    encoder = Encoder(tokenizer)
    assert (encoder.bos is not None) == (name == "mistral_v1")
    (example,) = tokenize([TEXT_PAIR], tokenizer)
    joined = [*example.prompt.tolist(), *example.responses[0].tolist()]
    head = [encoder.bos] if encoder.bos is not None else []
    assert joined == [*head, *ids(tokenizer, "how are you hello world"), tokenizer.eos_token_id]


@pytest.mark.parametrize("name", ["qwen2_5", "smollm2"])
def test_real_chat_templates_end_responses_with_im_end_alone(real, name):
    tokenizer = real(name)
    (example,) = tokenize([CHAT_PAIR], tokenizer)
    assert decoded(tokenizer, example.responses[0]) == "hello world<|im_end|>"
    whole = tokenizer.apply_chat_template([USER, GOOD], tokenize=False)
    joined = np.concatenate([example.prompt, example.responses[0]])
    assert decoded(tokenizer, joined) + "\n" == whole
    (cut,) = tokenize([CHAT_PAIR], tokenizer, max_prompt_len=5)
    np.testing.assert_array_equal(cut.prompt, example.prompt[-5:])


@pytest.mark.parametrize(
    ("name", "wanted", "k"),
    [
        ("hh_helpful", "pairs", 2),
        ("hellaswag_pairs", "pairs", 2),
        ("tinystories", "supervised", 1),
        ("sentiment_sentences", "binary", 1),
        ("gsm8k", "prompts", 0),
        ("gsm8k", "supervised", 1),
    ],
)
def test_real_data_sets_load(real, real_data, name, wanted, k):
    rows = sources.read(real_data(name))
    records, report = convert.to_records(rows, wanted)
    examples = tokenize(records[:300], real("smollm2"), report=report)
    assert examples.k == k and len(examples) > 290 and report.kind == wanted
