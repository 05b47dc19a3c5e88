"""Checkpoints: what is read, what is written, what is refused."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import GOLDEN, NAMES, golden_outputs, logits_of
from flax import nnx
from safetensors.numpy import load_file, save_file

from jalign.models import hub
from jalign.models.decoder import Decoder


def states_equal(a, b):
    pairs = zip(jax.tree.leaves(nnx.state(a)), jax.tree.leaves(nnx.state(b)), strict=True)
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


@pytest.fixture
def folder(tmp_path):
    """A copy of a tiny Qwen 2, and its tensors."""
    shutil.copytree(GOLDEN / "qwen2", tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder, change):
    """Apply `change` to the dict of tensors of a folder."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_saving_what_was_loaded_gives_the_same_tensors_under_the_same_names(name, tmp_path):
    model = hub.load(GOLDEN / name)
    hub.save(model, tmp_path)
    before = load_file(GOLDEN / name / "model.safetensors")
    after = load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key])
    assert states_equal(model, hub.load(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_transformers_reads_what_was_saved(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    hub.save(hub.load(GOLDEN / name), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager"
    )
    golden = golden_outputs(name)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(golden["tokens"]).long()).logits.numpy()
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
def test_transformers_reads_a_scalar_model_and_gives_the_same_scores(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = hub.load(GOLDEN / name, value_head=True, key=jax.random.key(3))
    hub.save(model, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path, attn_implementation="eager"
    )
    tokens = golden_outputs(name)["tokens"]
    hidden, _ = model(jnp.asarray(tokens), jnp.broadcast_to(jnp.arange(20), (2, 20)))
    with torch.no_grad():
        scores = theirs(torch.from_numpy(tokens).long()).logits.numpy()
    np.testing.assert_allclose(scores[:, 0], model.value(hidden)[:, -1], atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_scalar_head_survives_and_the_unembedding_is_dropped(name, tmp_path):
    model = hub.load(GOLDEN / name, value_head=True, key=jax.random.key(3))
    hub.save(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert tensors["score.weight"].shape == (1, 32)
    assert "lm_head.weight" not in tensors
    again = hub.load(tmp_path, value_head=True)
    np.testing.assert_array_equal(again.value.kernel, model.value.kernel)
    assert again.lm_head is None
    with pytest.raises(ValueError, match="value_head=True loads"):
        hub.load(tmp_path)
    hub.save(model, tmp_path / "language", value_head=False)
    assert hub.load(tmp_path / "language").value is None


def test_a_fresh_scalar_head_has_the_scale_of_its_width():
    kernels = [hub.load(GOLDEN / "llama", value_head=True, key=jax.random.key(i)) for i in (0, 1)]
    a, b = (np.asarray(m.value.kernel) for m in kernels)
    assert np.abs(a - b).max() > 0.01
    assert 0.6 < a.std() * 33**0.5 < 1.4


def test_large_models_are_split_into_files_with_an_index(tmp_path):
    model = hub.load(GOLDEN / "llama")
    hub.save(model, tmp_path, max_shard_bytes=30_000)
    files = sorted(p.name for p in tmp_path.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    for file in files:
        assert sum(x.nbytes for x in load_file(tmp_path / file).values()) <= 30_000
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["lm_head.weight"] in files
    assert states_equal(model, hub.load(tmp_path))


def test_saving_in_another_type_writes_it_in_weights_and_config(tmp_path):
    model = hub.load(GOLDEN / "llama")
    hub.save(model, tmp_path, dtype=jnp.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    again = hub.load(tmp_path, param_dtype=jnp.bfloat16)
    assert again.embed.weight.dtype == jnp.bfloat16
    np.testing.assert_array_equal(again.embed.weight, model.embed.weight.astype(jnp.bfloat16))


def test_the_tokenizer_travels_along(folder, tmp_path):
    (folder / "tokenizer.json").write_text("{}")
    (folder / "secret.txt").write_text("not the tokenizer's")
    hub.save(hub.load(folder), tmp_path / "out", folder)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "out" / "secret.txt").exists()


def test_a_checkpoint_of_the_bare_transformer_loads(tmp_path):
    shutil.copytree(GOLDEN / "gpt2", tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): x for name, x in tensors.items()}
    bare["h.0.attn.bias"] = np.tril(np.ones((1, 1, 64, 64), np.float32))  # a mask old files carry
    save_file(bare, tmp_path / "model.safetensors")
    assert states_equal(hub.load(tmp_path), hub.load(GOLDEN / "gpt2"))


def test_extras_that_hold_no_parameters_are_ignored(tmp_path):
    shutil.copytree(GOLDEN / "llama3", tmp_path, dirs_exist_ok=True)

    def change(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(6, np.float32)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]  # tied

    rewrite(tmp_path, change)
    assert states_equal(hub.load(tmp_path), hub.load(GOLDEN / "llama3"))


@pytest.mark.parametrize("shards", [1, 3])
def test_an_unembedding_of_its_own_in_a_tied_checkpoint_is_used_and_kept(tmp_path, shards):
    shutil.copytree(GOLDEN / "llama3", tmp_path / "tied")
    head = np.random.default_rng(0).normal(size=(80, 32)).astype(np.float32)
    head[:-1] = load_file(tmp_path / "tied" / "model.safetensors")["model.embed_tokens.weight"][:-1]
    rewrite(tmp_path / "tied", lambda tensors: tensors.update({"lm_head.weight": head}))
    model = hub.load(tmp_path / "tied")
    assert not model.spec.tied
    np.testing.assert_array_equal(model.lm_head.kernel[...].T, head)
    hub.save(model, tmp_path / "out", max_shard_bytes=10**9 if shards == 1 else 20_000)
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    )
    assert states_equal(model, hub.load(tmp_path / "out"))
    # a scalar model alone has no use for either
    assert hub.load(tmp_path / "tied", lm_head=False, value_head=True).lm_head is None


def test_transformers_reads_the_same_of_a_tied_checkpoint_with_another_unembedding(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    shutil.copytree(GOLDEN / "llama3", tmp_path, dirs_exist_ok=True)
    head = np.random.default_rng(0).normal(size=(80, 32)).astype(np.float32)
    rewrite(tmp_path, lambda tensors: tensors.update({"lm_head.weight": head}))
    tokens = golden_outputs("llama3")["tokens"]
    ours = logits_of(hub.load(tmp_path), tokens)
    hub.save(hub.load(tmp_path), tmp_path / "out")
    for folder in (tmp_path, tmp_path / "out"):
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager"
        )
        with torch.no_grad():
            logits = theirs(torch.from_numpy(tokens).long()).logits.numpy()
        np.testing.assert_allclose(logits, ours, atol=1e-4)


def test_a_tilde_is_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert hub.find("~/model") == folder
    assert hub.spec_of("~/model").vocab_size == 80


def test_every_tensor_that_does_not_fit_is_named_in_one_error(folder):
    def change(tensors):
        del tensors["model.norm.weight"], tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.2.mlp.up_proj.weight"] = np.ones((24, 31), np.float32)
        tensors["model.layers.3.mlp.up_proj.weight"] = np.ones((24, 32), np.float32)

    rewrite(folder, change)
    with pytest.raises(ValueError) as e:
        hub.load(folder)
    assert "missing: model.layers.1.mlp.up_proj.weight, model.norm.weight" in str(e.value)
    assert "unexpected: model.layers.3.mlp.up_proj.weight" in str(e.value)
    assert "model.layers.2.mlp.up_proj.weight is [24, 31], should be [24, 32]" in str(e.value)


def test_every_tensor_that_is_not_finite_is_named(folder):
    def change(tensors):
        tensors["model.norm.weight"][3] = np.nan
        tensors["model.layers.1.mlp.up_proj.weight"][2, 5] = np.inf

    rewrite(folder, change)
    named = "not finite: model.layers.1.mlp.up_proj.weight, model.norm.weight"
    with pytest.raises(ValueError, match=named):
        hub.load(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin can run code"):
        hub.load(folder)


@pytest.mark.parametrize("entry", ["../model.safetensors", "/etc/passwd", ".."])
def test_an_index_that_leaves_the_folder_is_refused(folder, entry):
    index = {"weight_map": {"lm_head.weight": entry, "model.norm.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="outside its folder"):
        hub.load(folder)


def test_a_broken_index_is_refused(folder):
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"lm_head.weight": "gone.safetensors"}}')
    with pytest.raises(ValueError, match=r"names gone.safetensors, which is not"):
        hub.load(folder)
    index.write_text('{"map": {}}')
    with pytest.raises(ValueError, match="not an index"):
        hub.load(folder)


@pytest.mark.parametrize("keep", [4, 100, -20])
def test_truncated_files_are_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="truncated or damaged"):
        hub.load(folder)


def test_weights_that_are_not_plain_floats_are_refused(folder):
    def change(tensors):
        tensors["model.norm.weight"] = np.ones(32, np.int8)

    rewrite(folder, change)
    with pytest.raises(ValueError, match=r"model.norm.weight is I8; weights must be F64, F32"):
        hub.load(folder)


def test_a_place_without_a_model_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=f"no folder {tmp_path / 'nowhere'}"):
        hub.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a file"):
        hub.load(folder / "config.json")
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="holds list"):
        hub.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        hub.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config.json"):
        hub.load(folder)


def test_a_fresh_model_can_be_saved_when_it_has_a_config(tmp_path):
    config = json.loads((GOLDEN / "phi3" / "config.json").read_text())
    model = hub.init(config, key=jax.random.key(0))
    assert 0.018 < float(model.embed.weight[...].std()) < 0.022
    hub.save(model, tmp_path)
    assert states_equal(model, hub.load(tmp_path))
    other = hub.init(model.spec, key=jax.random.key(0))
    assert states_equal(model, other)
    with pytest.raises(ValueError, match=r"no config.json to save"):
        hub.save(other, tmp_path)


def test_a_model_that_cannot_be_saved_says_why(tmp_path):
    model = hub.load(GOLDEN / "llama")
    with pytest.raises(ValueError, match="no scalar head"):
        hub.save(model, tmp_path, value_head=True)
    model.layers.attn.q.lora = Decoder(model.spec, rngs=nnx.Rngs(0)).final_norm
    model.layers.attn.q.lora.weight = nnx.LoRAParam(jnp.ones(3))
    with pytest.raises(ValueError, match="merge them"):
        hub.save(model, tmp_path)


def test_reading_in_another_type_computes_in_it():
    golden = golden_outputs("llama")
    model = hub.load(GOLDEN / "llama", dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    difference = np.abs(logits_of(model, golden["tokens"]) - golden["logits"])
    assert 1e-4 < difference.mean() < 0.05
