"""`jalign export`: what others read of a run's model, and that they read the same."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.data.chat import Template, load_tokenizer
from jalign.data.templates import TEMPLATES
from jalign.models import hub
from jalign.run import folder as runs
from jalign.run.export import card, model_folder, readers
from tests._cli import call
from tests._runs import HI, ONE
from tests.data.tiny_tokenizers import CHATML, byte_level
from tests.tiny_run import arguments, write_model


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base model in bfloat16 whose tokenizer ends texts with </s> and has no template; chats."""
    folder = tmp_path_factory.mktemp("export")
    write_model(folder / "first")
    hub.save(hub.load(folder / "first"), folder / "model", folder / "first", dtype=jnp.bfloat16)
    (folder / "chatml.jinja").write_text(CHATML)
    said = [{"messages": [HI, {"role": "assistant", "content": "fox"}]}] * 4
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    pairs = [
        {
            "prompt": [HI | {"content": f"hello {word}"}],
            "chosen": [{"role": "assistant", "content": f"the {word}"}],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        for word in ("fox", "world", "quick", "brown")
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    options = ONE | {"data.template": str(folder / "chatml.jinja"), "optim.learning_rate": 3e-2}

    def train(*args, **more):
        return call(["train", *arguments(folder, *args, **options | more)])[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        sft = {"data.train": str(folder / "chat.jsonl"), "steps": 20}
        assert train("sft", "sft", **sft) == 0
        reward = {"data.train": str(folder / "pairs.jsonl"), "steps": 1, "model.lora.rank": 2}
        assert train("rm", "bradley_terry", **reward) == 0
    return folder


@pytest.fixture(scope="module")
def exported(folder):
    """The language model and the reward model, in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", "")
        for name in ("sft", "rm"):
            args = ["export", folder / name, folder / f"{name}_out", "--dtype", "float32"]
            assert call(args)[0] == 0
    return folder


def test_what_a_base_model_learned_to_end_with_ends_it_in_transformers(exported):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    out = exported / "sft_out"
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    asked = tokenizer.apply_chat_template(
        [HI], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**asked, max_new_tokens=9, do_sample=False)[0]
    said = tokenizer.decode(ids[asked["input_ids"].shape[1] :])
    assert said == "fox<|im_end|>"
    ends = {tokenizer.convert_tokens_to_ids(t) for t in ("<|im_end|>", "</s>")}
    for file in ("config.json", "generation_config.json"):
        assert ends <= set(json.loads((out / file).read_text())["eos_token_id"])


def test_rewards_in_transformers_are_those_of_training_alone_and_in_a_batch(exported):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    out = exported / "rm_out"
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    texts = ["the fox", "no", "hello hello hello you"]
    chats = [[HI, {"role": "assistant", "content": text}] for text in texts]
    ask = {"return_tensors": "pt", "return_dict": True}
    with torch.no_grad():
        alone = [model(**tokenizer.apply_chat_template([c], **ask)).logits.item() for c in chats]
        rows = tokenizer.apply_chat_template(chats, padding=True, **ask)
        batch = model(**rows).logits[:, 0].tolist()
    ours = runs.reward_model(str(exported / "rm"))([[HI]] * 3, texts)
    assert np.ptp(ours) > 0.02
    np.testing.assert_allclose(alone, ours, atol=2e-5)
    np.testing.assert_allclose(batch, ours, atol=2e-5)
    again = runs.reward_model(str(out))([[HI]] * 3, texts)  # jalign reads what it wrote
    np.testing.assert_allclose(again, ours, atol=2e-5)


def test_a_reward_model_without_a_token_to_spare_gets_one_and_a_row_for_it(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = write_model(tmp_path / "model")
    config = hub.read_config(folder)
    tokenizer = byte_level(eos_token="</s>")
    rows = len(tokenizer)
    kept = {i: t for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    assert config["vocab_size"] == rows
    every = tuple(kept)  # as of GPT-2, whose only special token ends its texts
    model = hub.init(config, key=jax.random.key(0), value_head=True)
    assert readers.pad_apart(tokenizer, model, every)
    assert tokenizer.pad_token_id == rows and model.embed.weight.shape[0] == rows + 1
    settings = {"pad_token_id": tokenizer.pad_token_id}
    hub.save(model, tmp_path / "out", tokenizer, settings=settings)
    auto = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    texts = ["hello</s>", "the quick fox</s>"]
    with torch.no_grad():
        batch = auto(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
        alone = [auto(**tokenizer(t, return_tensors="pt")).logits.item() for t in texts]
    np.testing.assert_allclose(batch.tolist(), alone, atol=1e-5)
    assert hub.load(tmp_path / "out", value_head=True).spec.vocab_size == rows + 1


@pytest.mark.parametrize(
    "source", [CHATML, TEMPLATES["hh"], CHATML.replace("<|im_end|>\n", " .\n")]
)
def test_conversations_for_a_reward_model_end_where_training_scored(source):
    tokenizer = byte_level(eos_token="</s>", chat_template=source)
    answer = {"role": "assistant", "content": "the fox"}
    prompt, segments = Template.of(tokenizer).split([HI], [answer])
    text = prompt + "".join(part for part, _ in segments)
    text = text if text.endswith("<|im_end|>") else text + "</s>"
    asked = tokenizer.apply_chat_template([HI], add_generation_prompt=True, tokenize=False)
    readers.end_where_scored(tokenizer)
    assert tokenizer.apply_chat_template([HI, answer], tokenize=False) == text
    again = tokenizer.apply_chat_template([HI], add_generation_prompt=True, tokenize=False)
    assert again == asked


def test_an_export_has_the_type_and_rights_of_its_base_and_says_where_it_comes_from(
    folder, tmp_path, capsys
):
    out = tmp_path / "out"
    code, said = call(["export", folder / "sft", out], capsys)
    assert code == 0 and "weights in bfloat16, rounded" in said.out
    assert hub.stored_dtype(out) == jnp.bfloat16
    plain = (out / "config.json").stat().st_mode
    assert {file.stat().st_mode for file in out.iterdir()} == {plain}
    assert Template.of(load_tokenizer(str(out))).source == CHATML
    facts = card.read(str(out))
    assert (facts["step"], facts["algorithm"]["name"]) == (20, "sft")
    text = (out / "README.md").read_text()
    for words in (str(folder / "sft"), "step 20", "learning_rate 0.03", "AutoModelForCausalLM"):
        assert words in text, words


def test_an_adapter_brings_its_tokenizer_and_what_ends_a_response(folder, tmp_path):
    out = tmp_path / "out"
    assert call(["export", folder / "rm", out, "--adapter"])[0] == 0
    assert (out / "adapter_model.safetensors").stat().st_mode == (out / "README.md").stat().st_mode
    assert "im_end" in load_tokenizer(str(out)).chat_template


def test_another_model_is_replaced_only_when_that_is_asked_for(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert call(["export", folder / "rm", out])[0] == 0
    (out / "notes.org").write_text("mine")
    code, said = call(["export", folder / "sft", out], capsys)
    assert code == 3 and "holds a model already" in said.err and "--overwrite" in said.err
    assert call(["export", folder / "sft", out, "--overwrite"])[0] == 0
    assert not (out / "reward.json").exists() and (out / "notes.org").exists()
    code, said = call(["export", folder / "sft", folder / "rm", "--overwrite"], capsys)
    assert code == 3 and "is the folder of a run" in said.err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    code, said = call(["export", folder / "sft", tmp_path / "other", "--overwrite"], capsys)
    assert code == 3 and "holds none" in said.err


def test_a_folder_that_was_not_finished_does_not_load(tmp_path):
    with pytest.raises(RuntimeError), model_folder.written(tmp_path / "new") as out:
        (out / "config.json").write_text("{}")
        raise RuntimeError
    assert not (tmp_path / "new").exists()
    (tmp_path / "killed" / ".unfinished").mkdir(parents=True)  # as SIGKILL leaves it
    with pytest.raises(ValueError, match=r"no config\.json"):
        hub.read_config(tmp_path / "killed")
    with model_folder.written(tmp_path / "killed") as out:
        (out / "config.json").write_text("{}")
    assert [p.name for p in (tmp_path / "killed").iterdir()] == ["config.json"]
