"""What ends a response is one thing for training, sampling, rewards and export."""

import json

import numpy as np
import pytest

from jalign.config.read import read_config
from jalign.data.convert import to_records
from jalign.data.templates import TEMPLATES
from jalign.data.tokenize import tokenize
from jalign.rollout.text import continuation
from jalign.run.policy import eos_ids, tokenizer_of
from jalign.run.prompts import PromptTable
from tests.data.tiny_tokenizers import CHATML, byte_level

CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]


def folder_of(path, template=None, generation=None, config=None):
    """A model's folder as far as ends are concerned."""
    path.mkdir()
    byte_level(chat_template=template).save_pretrained(path)
    for name, facts in (("generation_config", generation), ("config", config or {"x": 1})):
        if facts is not None:
            (path / f"{name}.json").write_text(json.dumps(facts))
    return path


def run_config(path, *more):
    return read_config(["--algorithm.name", "sft", "--model.path", str(path), *more])


def ends(path, *more):
    tokenizer = tokenizer_of(run_config(path, *more))
    return tokenizer.convert_ids_to_tokens(list(eos_ids(str(path), tokenizer)))


@pytest.mark.parametrize(
    ("template", "generation", "config", "expected"),
    [
        (None, None, None, ["</s>"]),
        (None, {"eos_token_id": 0}, {"eos_token_id": 1}, ["<pad>", "</s>"]),
        (None, None, {"eos_token_id": [0, 3]}, ["<pad>", "</s>"]),
        (CHATML, None, None, ["</s>", "<|im_end|>"]),
        (CHATML, {"eos_token_id": [0, 3]}, None, ["<pad>", "</s>", "<|im_end|>"]),
        (CHATML.replace("<|im_end|>", "</s>"), {"eos_token_id": 3}, None, ["</s>"]),
        (TEMPLATES["hh"], None, None, ["</s>"]),  # text ends its turns: the EOS follows the last
        ("{{ raise_exception('no chats') }}", None, None, ["</s>"]),
    ],
)
def test_a_sampled_response_ends_at_the_eos_and_at_what_the_template_ends_turns_with(
    tmp_path, template, generation, config, expected
):
    assert ends(folder_of(tmp_path / "m", template, generation, config)) == expected


def test_the_last_scored_token_of_a_chat_is_one_that_ends_a_sampled_response(tmp_path):
    path = folder_of(tmp_path / "m", CHATML, {"eos_token_id": 3})
    tokenizer = tokenizer_of(run_config(path))
    (example,) = tokenize(to_records([{"messages": CHAT}], "supervised")[0], tokenizer)
    last = int(example.responses[0][-1])
    assert tokenizer.convert_ids_to_tokens(last) == "<|im_end|>"
    assert last in eos_ids(str(path), tokenizer)


def test_the_template_of_a_run_goes_with_its_tokenizer_also_without_the_file(tmp_path):
    path, file = folder_of(tmp_path / "m"), tmp_path / "own.jinja"
    file.write_text(CHATML)
    assert ends(path, "--data.template", str(file)) == ["</s>", "<|im_end|>"]
    facts = tmp_path / "config.json"  # as a run writes it
    facts.write_text(json.dumps({"data": {"template": CHATML}, "algorithm": {"name": "sft"}}))
    config = read_config(["--config", str(facts), "--model.path", str(path)])
    tokenizer = tokenizer_of(config)
    assert config.data.template == tokenizer.chat_template == CHATML
    tokenizer.save_pretrained(tmp_path / "exported")
    assert ends(folder_of(tmp_path / "other", tokenizer.chat_template)) == ["</s>", "<|im_end|>"]


def test_rewards_read_a_response_without_the_token_that_ended_it(tmp_path):
    tokenizer = byte_level(chat_template=CHATML.replace("<|im_end|>", "<end>"))
    tokenizer.add_tokens(["<end>"])  # not special: decoding would show it
    end = tokenizer.convert_tokens_to_ids("<end>")
    prompt, said = tokenizer.encode("hello"), tokenizer.encode(" world")
    table = PromptTable.of_rows(["hello"], tokenizer)
    prompt = table[0].ids.tolist()
    for response, text in ((said, " world"), ([*said, end], " world"), ([end], "")):
        assert table.decode(0, np.array(response, np.int32)) == text
        assert continuation(tokenizer, prompt, response, (end,)) == text
    assert continuation(tokenizer, prompt, [end, *said], (end,)) == "<end> world"
