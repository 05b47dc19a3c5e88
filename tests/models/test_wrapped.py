"""A model of text and images is read as its text model."""

import json
import shutil

import numpy as np
import pytest
from fixtures_of_models import GOLDEN, golden_outputs, logits_of
from safetensors.numpy import load_file, save_file

from jalign.models import hub
from jalign.models.families.wrapped import text_config, text_name

GEMMA = json.loads((GOLDEN / "gemma3_text" / "config.json").read_text())
VISION = {"vision_tower.encoder.x.weight": np.ones(2, np.int8)}  # of a type that no text model has
PROJECTOR = {"multi_modal_projector.mm_soft_emb_norm.weight": np.ones(2, np.float32)}


def wrap(folder, name="gemma3_text", kind="Gemma3ForConditionalGeneration", newer=False, **more):
    """A golden model inside of one of text and images."""
    shutil.copytree(GOLDEN / name, folder, dirs_exist_ok=True)
    inner = json.loads((folder / "config.json").read_text())
    inner.pop("architectures")
    config = {"architectures": [kind], "model_type": "gemma3", "text_config": inner} | more
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": [1, 106]}))
    tensors = load_file(folder / "model.safetensors")
    if newer:
        named = {
            n.replace("model.", "model.language_model.", 1) if n.startswith("model.") else n: x
            for n, x in tensors.items()
        }
        rest = {f"model.{n}": x for n, x in (VISION | PROJECTOR).items()}
    else:
        named, rest = {f"language_model.{n}": x for n, x in tensors.items()}, VISION | PROJECTOR
    save_file(named | rest, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    "newer", [False, True], ids=["language_model.model", "model.language_model"]
)
def test_gemma_3_with_a_vision_tower_is_its_text_model(tmp_path, caplog, newer):
    model = hub.load(wrap(tmp_path / "wrapped", newer=newer))
    assert "2 tensors of multi_modal_projector, vision_tower are left out" in caplog.text
    golden = golden_outputs("gemma3_text")
    np.testing.assert_allclose(logits_of(model, golden["tokens"]), golden["logits"], atol=2e-4)
    hub.save(model, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == ["Gemma3ForCausalLM"] and "text_config" not in config
    assert config["model_type"] == "gemma3_text"
    before = load_file(GOLDEN / "gemma3_text" / "model.safetensors")
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == before.keys()
    assert hub.embedding(tmp_path / "wrapped").shape == (80, 32)


def test_an_untied_text_model_brings_its_unembedding(tmp_path, caplog):
    folder = wrap(tmp_path, "mistral", "LlavaForConditionalGeneration", tie_word_embeddings=False)
    model, golden = hub.load(folder), golden_outputs("mistral")
    assert "left out" in caplog.text
    np.testing.assert_allclose(logits_of(model, golden["tokens"]), golden["logits"], atol=2e-4)


@pytest.mark.filterwarnings("ignore")  # of torch and transformers
def test_transformers_gives_the_same_logits_for_text(tmp_path, caplog):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(
        text_config=GEMMA, vision_config=vision, mm_tokens_per_image=4, image_token_index=70
    )
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    theirs = transformers.Gemma3ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    tokens = golden_outputs("gemma3_text")["tokens"]
    model = hub.load(tmp_path / "theirs")
    hub.save(model, tmp_path / "out")
    text = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    )
    ids = torch.from_numpy(tokens).long()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=torch.ones_like(ids)).logits.numpy()
        np.testing.assert_allclose(text(ids).logits.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(logits_of(model, tokens), expected, atol=1e-4)


def test_what_the_inner_config_leaves_out_is_as_in_transformers():
    # as google/gemma-3-4b-it has it
    inner = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240}
    inner |= {"num_hidden_layers": 34, "sliding_window": 1024}
    inner |= {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
    config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": inner}
    spec = hub.family_of(text_config(config)).spec(text_config(config))
    assert (spec.vocab_size, spec.heads, spec.kv_heads, spec.head_dim) == (262208, 8, 4, 256)
    assert spec.rope.linear == 8.0 and spec.rope.base == 1e6 and spec.local_rope.base == 1e4
    assert spec.tied and spec.windowed[:6] == (True,) * 5 + (False,)
    assert spec.context == 131072


def test_wrappers_of_text_models_that_are_not_here_stay_unknown():
    config = {"architectures": ["Other"], "text_config": {"model_type": "mamba"}}
    assert text_config(config) == config
    with pytest.raises(ValueError, match="its own Python code"):
        text_config({"auto_map": {"a": "b"}, "text_config": {"model_type": "llama"}})
    assert text_name("model.layers.0.x") == "model.layers.0.x"
    assert text_name("model.language_model.layers.0.x") == "model.layers.0.x"
    assert text_name("language_model.lm_head.weight") == "lm_head.weight"
