"""Small templates in the style of the usual ones: what is scored ends with one end of turn."""

import pytest
from tiny_tokenizers import CHATML, byte_level

from jalign.data.chat import Template
from jalign.data.convert import to_records
from jalign.data.records import Record
from jalign.data.templates import TEMPLATES
from jalign.data.tokenize import tokenize

OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
SAID = "{{ '<|im_start|>assistant\n' }}{% generation %}{{ m.content%s }}{% endgeneration %}"


def marked(inside, after=""):
    """ChatML with generation marks; `inside` ends the block, `after` stands behind it."""
    said = SAID.replace("%s", f" + '{inside}'" if inside else "")
    return (
        f"{{% for m in messages %}}{{% if m.role == 'assistant' %}}{said}{{{{ '{after}' }}}}"
        f"{{% else %}}{TURN}{{% endif %}}{{% endfor %}}{OPEN}"
    )


EOS_LAST = "{% if not add_generation_prompt %}%s{% endif %}"
STYLES = {
    "ends inside the block": marked("<|im_end|>"),
    "newline inside the block": marked("<|im_end|>\\n"),
    "ends behind the block": marked("", "<|im_end|>\\n"),
    "ends after a space": marked("", " <|im_end|>\\n"),
    "EOS in a block of its own": marked("<|im_end|>\\n")
    + EOS_LAST.replace("%s", "{% generation %}{{ eos_token }}{% endgeneration %}"),
    "EOS when nothing follows": CHATML + EOS_LAST.replace("%s", "{{ eos_token }}"),
    "two blocks in a turn": marked("", "<|im_end|>\\n").replace(
        "{% generation %}{{ m.content }}{% endgeneration %}",
        "{% generation %}{{ m.content[:1] }}{% endgeneration %}"
        "{% generation %}{{ m.content[1:] }}{% endgeneration %}",
    ),
    "two tokens end a turn": CHATML.replace("<|im_end|>\n", "</s><|im_end|>\n"),
}


def chat(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def shown(source, row, kind="supervised", **options):
    """Prompt and responses of one row, what is scored between guillemets; and the report."""
    tokenizer = source if not isinstance(source, str) else byte_level(chat_template=source)
    records, report = to_records([row], kind)
    examples = tokenize(records, tokenizer, report=report, **options)
    if not examples:
        return None, [], examples.report
    (example,) = examples
    texts = []
    for ids, mask in zip(example.responses, example.scored, strict=True):
        text, on = "", False
        for token, scored in zip(ids.tolist(), mask.tolist(), strict=True):
            text += ("«" if scored else "»") if scored != on else ""
            text, on = text + tokenizer.decode([token]), scored
        texts.append(text + "»" * on)
    return tokenizer.decode(example.prompt.tolist()), texts, examples.report


@pytest.mark.parametrize("style", STYLES)
def test_every_scored_turn_ends_with_one_end_of_turn_and_nothing_behind_it(style):
    row = {"messages": chat("how", "are you", "the", "fox")}
    end = {"ends after a space": " <|im_end|>", "two tokens end a turn": "</s><|im_end|>"}
    end = end.get(style, "<|im_end|>")
    prompt, (text,), _ = shown(STYLES[style], row, loss_turns="all")
    assert prompt == "<|im_start|>user\nhow" + ("</s>" * ("</s>" in end)) + (
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    first, last = (part.split("»")[0] for part in text.split("«")[1:])
    assert (first, last) == ("are you" + end, "fox" + end) and text.endswith("»")
    prompt, (text,), _ = shown(STYLES[style], row)
    assert text == f"«fox{end}»" and prompt.count("are you") == 1


def test_an_end_that_the_data_write_themselves_is_not_doubled():
    row = {"messages": chat("how", "are you<|im_end|>\n", "the", "fox<|im_end|></s>")}
    _, (text,), report = shown(CHATML, row, loss_turns="all")
    assert text.count("are you<|im_end|>") == 1 and text.endswith("«fox<|im_end|>»")
    assert "1 of 1 rows have a message" in report.warnings[0]
    pair = {"prompt": "hello", "chosen": " world<|im_end|>\n", "rejected": " fox</s> \n"}
    _, texts, _ = shown(CHATML, pair, "pairs")
    assert texts == ["« world<|im_end|>»", "« fox</s>»"]
    _, texts, _ = shown(byte_level(), pair, "pairs")  # no template says that it ends a turn
    assert texts == ["« world<|im_end|>\n</s>»", "« fox</s>»"]


REASONS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>' + m.content }}{% else %}"
    "{{ '<s>' + m.content.split('</think>')[-1] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s><think>\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    ("said", "response"),
    [
        ("<think>\nhow\n</think>\n\nfox", "how\n</think>\n\nfox"),
        ("how\n</think>\n\nfox", "how\n</think>\n\nfox"),
        ("fox", "\n</think>\n\nfox"),
    ],
)
def test_an_answer_goes_on_where_the_prompt_of_a_reasoning_model_opens_the_thoughts(said, response):
    prompt, texts, report = shown(REASONS, {"messages": chat("you", said)})
    assert prompt == "<|im_start|>you<s><think>\n" and texts == [f"«{response}<|im_end|>»"]
    assert "responses are the text of the messages" in report.warnings[0]


def test_history_that_is_rewritten_is_refused_with_advice_that_helps():
    row = {"messages": chat("you", "how</think>fox", "the", "the</think>you")}
    assert shown(REASONS, row)[1] == ["«the</think>you<|im_end|>»"]
    with pytest.raises(ValueError, match=r"row 0: .*of your own, or set data\.loss_turns to last"):
        shown(REASONS, row, loss_turns="all")


def test_a_prompt_that_ends_with_the_assistant_is_continued_without_a_second_header():
    begun = chat("how", "the quick")
    row = {"prompt": begun, "completion": " brown fox"}
    for source in (CHATML, STYLES["newline inside the block"]):
        prompt, texts, _ = shown(source, row)
        assert prompt == "<|im_start|>user\nhow<|im_end|>\n<|im_start|>assistant\nthe quick"
        assert texts == ["« brown fox<|im_end|>»"]
        pair = {"prompt": begun, "chosen": " brown", "rejected": " fox"}
        assert shown(source, pair, "pairs")[1] == ["« brown<|im_end|>»", "« fox<|im_end|>»"]
        assert shown(source, {"prompt": begun}, "prompts")[0] == prompt
    later = chat("", *(" brown", "you", "fox"))[1:]
    prompt, texts, _ = shown(CHATML, {"prompt": begun, "completion": later})
    assert "the quick brown<|im_end|>" in prompt and texts == ["«fox<|im_end|>»"]
    two = [*chat("how"), *({"role": "assistant", "content": t} for t in ("the", "fox"))]
    prompt, texts, _ = shown(CHATML, {"messages": two})  # two messages of a conversation are two
    assert prompt.endswith("the<|im_end|>\n<|im_start|>assistant\n") and texts == [
        "«fox<|im_end|>»"
    ]


def test_a_conversation_may_begin_with_the_assistant():
    system = "{{ '<|im_start|>system\nhow<|im_end|>\n' }}"
    refuses = "{% if not messages %}{{ raise_exception('no messages') }}{% endif %}" + system
    greeting = [{"role": "assistant", "content": "hello"}, *chat("you", "fox")]
    for source in (CHATML, system + CHATML, refuses + CHATML):
        template = Template.of(byte_level(chat_template=source))
        prompt, segments = template.split([], greeting, turns="all")
        assert prompt.endswith("<|im_start|>assistant\n") and ("system" in prompt) == (
            source != CHATML
        )
        assert [t for t, scored in segments if scored] == ["hello<|im_end|>", "fox<|im_end|>"]


def test_a_message_that_is_not_trained_on_is_not_scored_and_none_is_a_reason_to_drop():
    talk = chat("how", "are", "you", "fox", "the", "brown")
    talk[1]["train"] = talk[5]["train"] = False
    _, (text,), _ = shown(CHATML, {"messages": talk}, loss_turns="all")
    assert text.count("«") == 1 and "«fox<|im_end|>»" in text
    prompt, texts, _ = shown(CHATML, {"messages": talk})  # the last that is trained on
    assert prompt.count("<|im_start|>") == 4 and texts == ["«fox<|im_end|>»"]
    talk[3]["train"] = False
    assert shown(CHATML, {"messages": talk})[2].dropped == {"no assistant turn is trained on": 1}


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def test_the_template_for_tools_is_taken_where_there_are_tools():
    tokenizer = byte_level()
    tools = "{% for t in tools %}{{ 'the ' + t.function.name + '\n' }}{% endfor %}"
    tokenizer.chat_template = {"default": CHATML, "tool_use": tools + CHATML}
    prompt, texts, _ = shown(tokenizer, {"messages": chat("how", "fox"), "tools": [TOOL]})
    assert prompt.startswith("the look\n<|im_start|>user") and texts == ["«fox<|im_end|>»"]
    assert shown(tokenizer, {"messages": chat("how", "fox")})[0].startswith("<|im_start|>user")
    prompt = shown(tokenizer, {"prompt": chat("how"), "tools": [TOOL]}, "prompts")[0]
    assert prompt.startswith("the look\n") and prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("c.function.arguments | tojson", '{"word": "tea"}'),
        ("c.function.arguments", '{"word": "tea"}'),  # Python would show its own quotes
        ("'' + c.function.arguments", '{"word": "tea"}'),
        ("c.function.arguments.word", "tea"),
    ],
)
def test_arguments_of_tool_calls_are_what_the_template_can_write(written, arguments):
    calls = f"{{% for c in m.tool_calls or [] %}}{{{{ {written} }}}}{{% endfor %}}"
    source = CHATML.replace("{{ m.content }}", "{{ m.content }}" + calls)
    for given in ({"word": "tea"}, '{"word": "tea"}'):
        call = {"type": "function", "function": {"name": "look", "arguments": given}}
        talk = [*chat("how"), {"role": "assistant", "content": "", "tool_calls": [call]}]
        assert shown(source, {"messages": talk})[1] == [f"«{arguments}<|im_end|>»"]


def test_a_turn_that_calls_a_tool_may_end_with_a_token_of_its_own():
    source = CHATML.replace("<|im_end|>", "{{ '</s>' if m.tool_calls else '<|im_end|>' }}")
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    talk = [*chat("how"), {"role": "assistant", "content": "fox", "tool_calls": [call]}]
    talk += [{"role": "tool", "content": "brown"}, *chat("", "you")[1:]]
    tokenizer = byte_level(chat_template=source, eos_token="<|im_end|>")
    assert shown(tokenizer, {"messages": talk[:2]})[1] == ["«fox</s>»"]
    assert shown(tokenizer, {"messages": talk})[1] == ["«you<|im_end|>»"]


def test_control_tokens_in_messages_are_counted():
    rows = [{"messages": chat("how<|im_end|>\n<|im_start|>system\nfox", "you")}] + [
        {"messages": chat("how", "you")}
    ] * 2
    tokenizer = byte_level(chat_template=CHATML)
    (warning,) = tokenize(to_records(rows, "supervised")[0], tokenizer).report.warnings
    assert warning.startswith("1 of 3 rows have a message") and "such as <|im_end|>" in warning
    assert tokenize([Record("how<|im_end|>", [" fox"], {})], tokenizer).report.warnings == []


def test_an_end_of_turn_that_is_no_token_is_said_and_the_eos_ends_the_response():
    _, texts, report = shown(
        CHATML.replace("<|im_end|>", "<eot>"), {"messages": chat("how", "fox")}
    )
    assert texts == ["«fox</s>»"]
    assert "ends an assistant turn with '<eot>', which is no token" in report.warnings[0]


def test_steps_may_answer_a_chat():
    row = {"prompt": chat("how"), "completions": ["the", "fox"], "labels": [True, False]}
    prompt, texts, _ = shown(CHATML, row, "stepwise")
    assert prompt.endswith("<|im_start|>assistant\n") and texts == ["the«\n»fox«\n»"]


BUILT_IN = {
    "chatml": ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<|im_end|>\n"
               "<|im_start|>assistant\n", "a<|im_end|>"),
    "llama3": ("<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user"
               "<|end_header_id|>\n\nu<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
               "a<|eot_id|>"),
    "zephyr": ("<|system|>\nS</s>\n<|user|>\nu</s>\n<|assistant|>\n", "a</s>"),
    "gemma": ("<start_of_turn>user\nS\n\nu<end_of_turn>\n<start_of_turn>model\n",
              "a<end_of_turn>"),
    "hh": ("S\n\nHuman: u\n\nAssistant:", " a"),
}  # fmt: skip


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_templates_write_what_their_models_read(name, bos):
    assert set(BUILT_IN) == set(TEMPLATES)
    tokenizer = byte_level(bos=bos)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot_id|>", "<end_of_turn>"]})
    messages = [{"role": "system", "content": "S"}, *chat("u", "a", "v", "b")]
    prompt, segments = Template.of(tokenizer, name).split(messages[:2], messages[2:3])
    expected, response = BUILT_IN[name]
    assert prompt == "<s>" * bos + expected and segments == [(response, True)]
    _, segments = Template.of(tokenizer, name).split(messages[:2], messages[2:], turns="all")
    assert [scored for _, scored in segments] == [True, False, True]
