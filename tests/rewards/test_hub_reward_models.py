"""Sequence-classification models of other makers reward as they do in transformers."""

import json

import numpy as np
import pytest

import jalign
from jalign.rewards.model import RewardModel
from jalign.serve.models import load_model
from jalign.serve.scorers import RewardScorer
from tests.data.tiny_tokenizers import CHATML, byte_level

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "num_labels": 1,
}  # fmt: skip
KINDS = ("Llama", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Mistral")
ASKED = [{"role": "user", "content": "how are you"}]
ANSWERS = ["the quick brown fox", "you", "hello hello world"]


def write(folder, kind, *, template=CHATML, pad="<pad>"):
    """A random model of num_labels 1 with its tokenizer."""
    tokenizer = byte_level(bos=True, chat_template=template)
    tokenizer.add_special_tokens({"pad_token": pad} if pad else {})
    ids = {"pad_token_id": tokenizer.pad_token_id if pad else None}
    ids |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **SIZES, **ids)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn_like(p))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def theirs(folder, answers=ANSWERS, asked=ASKED):
    """Scores of the whole conversations, padded to one length."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    chats = [[*asked, {"role": "assistant", "content": text}] for text in answers]
    ask = {"return_tensors": "pt", "return_dict": True}
    with torch.no_grad():
        if model.config.pad_token_id is None:
            alone = [model(**tokenizer.apply_chat_template([c], **ask)).logits for c in chats]
            return torch.cat(alone)[:, 0].numpy()
        rows = tokenizer.apply_chat_template(chats, padding=True, **ask)
        return model(**rows).logits[:, 0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_are_the_scores_of_transformers_at_the_last_token(tmp_path, kind):
    folder = write(tmp_path, kind)
    assert json.loads((folder / "config.json").read_text())["architectures"] == [
        f"{kind}ForSequenceClassification"
    ]
    expected = theirs(folder)
    assert np.ptp(expected) > 0.05
    model = RewardModel.load(folder)
    np.testing.assert_allclose(model([ASKED] * 3, ANSWERS), expected, atol=2e-5)
    at_end = RewardModel.load(folder, read_at="end", pad_token=None)([ASKED] * 3, ANSWERS)
    assert np.abs(at_end - expected).max() > 0.01  # the line break behind the turn counts


@pytest.mark.parametrize("pad", [None, "<|im_end|>"])
def test_the_last_token_that_is_not_padding_counts_also_where_it_ends_turns(tmp_path, pad):
    folder = write(
        tmp_path, "Mistral", template=CHATML.replace("<|im_end|>\n", "<|im_end|>"), pad=pad
    )
    model = RewardModel.load(folder)
    found = model([ASKED] * 3, ANSWERS)
    np.testing.assert_allclose(found, theirs(folder), atol=2e-5)
    at_end = RewardModel.load(folder, read_at="end", pad_token=None)([ASKED] * 3, ANSWERS)
    assert np.allclose(found, at_end, atol=1e-4) == (pad is None)


def test_empty_answers_and_texts_without_messages(tmp_path):
    model = RewardModel.load(write(tmp_path, "Llama"))
    none, text = model([ASKED, "hello"], ["", " you"])
    assert none == -np.inf
    np.testing.assert_allclose(model.of_sampled([ASKED], [""]), theirs(tmp_path, [""]), atol=2e-5)
    plain = RewardModel.load(tmp_path, read_at="end", pad_token=None)
    np.testing.assert_allclose(text, plain(["hello"], [" you"])[0], rtol=1e-5)
    np.testing.assert_allclose(
        model.of_sampled(["hello"], [""]), plain.of_sampled(["hello"], [""]), rtol=1e-5
    )
    begun = [*ASKED, {"role": "assistant", "content": "the quick"}]
    found = model([begun], [" fox"])
    np.testing.assert_allclose(found, theirs(tmp_path, ["the quick fox"]), atol=2e-5)
    with pytest.raises(ValueError, match="did you mean 'last'"):
        RewardModel.load(tmp_path, read_at="lst")
    with pytest.raises(ValueError, match="set no limits"):
        RewardModel.load(tmp_path, max_response_len=3)


def test_it_is_loaded_served_and_exported_as_it_is(tmp_path):
    folder, out = str(write(tmp_path / "theirs", "Qwen2")), tmp_path / "out"
    expected = theirs(folder)
    policy = jalign.load(folder)
    np.testing.assert_allclose(policy.reward([ASKED] * 3, ANSWERS), expected, atol=2e-5)
    scorer = load_model(folder)
    assert isinstance(scorer, RewardScorer)
    np.testing.assert_allclose(scorer.rewards([ASKED] * 3, ANSWERS), expected, atol=2e-5)
    policy.save(out)
    np.testing.assert_allclose(theirs(out), expected, atol=2e-5)
    np.testing.assert_allclose(RewardModel.load(out)([ASKED] * 3, ANSWERS), expected, atol=2e-5)
    with pytest.raises(ValueError, match="no unembedding"):
        policy.generate(["hello"], max_new_tokens=1)


def test_a_language_model_rewards_nothing(tmp_path):
    from tests.tiny_run import write_model

    policy = jalign.load(str(write_model(tmp_path)))
    with pytest.raises(ValueError, match="this model has none"):
        policy.reward(["hello"], ["you"])
