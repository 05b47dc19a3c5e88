import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import GOLDEN
from flax import nnx
from safetensors.numpy import load_file, save_file

from jalign.models import hub
from jalign.models.adapters.lora import adapters, add_lora, merge
from jalign.models.adapters.peft import load_adapter, save_adapter
from jalign.models.adapters.peft_tables import vocabulary_of
from jalign.models.decoder import Decoder
from jalign.models.families import family_of

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 31,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "pad_token_id": 0,
}
PHI3 = LLAMA | {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3"}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "vocab_size": 31,
    "activation_function": "gelu_new",
    "bos_token_id": 0,
    "eos_token_id": 0,
}
KINDS = {"llama": LLAMA, "phi3": PHI3, "gpt2": GPT2}
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
PLACES = np.broadcast_to(np.arange(7), (2, 7))


def base(config, seed=0, **options):
    """With parameters that numpy drew: nothing to compile."""
    spec = family_of(config).spec(config)
    model = nnx.eval_shape(lambda: Decoder(spec, rngs=nnx.Rngs(0), **options))
    model.source = json.dumps(config)
    graphdef, abstract = nnx.split(model)
    draw = np.random.default_rng(seed).normal
    fill = lambda x: jnp.asarray(draw(size=x.shape) * 0.2, jnp.float32)  # noqa: E731
    return nnx.merge(graphdef, jax.tree.map(fill, abstract))


@pytest.fixture(scope="module")
def bases():
    return {name: base(config) for name, config in KINDS.items()}


def trained(model, rank=3, alpha=5.0, **options):
    """With adapters whose B is not zero."""
    model = add_lora(model, rank=rank, alpha=alpha, rngs=nnx.Rngs(1), **options)
    for i, lora in enumerate(adapters(model).values()):
        lora.b[...] = np.random.default_rng(i).normal(size=lora.b.shape).astype(np.float32)
    return model


@jax.jit
def _logits(model):
    return model.logits(model(jnp.asarray(TOKENS), jnp.asarray(PLACES))[0])


def logits(model):
    return np.asarray(_logits(model))


@pytest.mark.parametrize(
    "kind, options",
    [
        ("llama", {}),
        ("llama", {"targets": "q|down", "rank_stabilized": True, "dropout": 0.1}),
        ("phi3", {}),
        ("phi3", {"targets": "q|v|o"}),
        ("gpt2", {"rank_stabilized": True}),
    ],
)
def test_what_is_saved_loads_as_the_same_function(bases, tmp_path, kind, options):
    model = trained(bases[kind], **options)
    save_adapter(model, tmp_path, "base")
    loaded = load_adapter(bases[kind], tmp_path)
    np.testing.assert_allclose(logits(loaded), logits(model), atol=2e-6)
    assert np.abs(logits(loaded) - logits(bases[kind])).max() > 1e-2


def test_adapters_of_separate_matrices_come_back_exactly(bases, tmp_path):
    model = trained(bases["llama"], dropout=0.1, targets="attn[.].*")
    save_adapter(model, tmp_path, "base")
    before, after = adapters(model), adapters(load_adapter(bases["llama"], tmp_path))
    assert before.keys() == after.keys()
    for path, lora in before.items():
        np.testing.assert_array_equal(lora.a[...], after[path].a[...])
        np.testing.assert_array_equal(lora.b[...], after[path].b[...])
        assert (lora.scale, lora.dropout) == (after[path].scale, after[path].dropout)


def test_the_files_hold_what_peft_expects(bases, tmp_path):
    save_adapter(trained(bases["llama"], targets="q"), tmp_path, "some/base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 5.0, ["q_proj"])
    assert config["base_model_name_or_path"] == "some/base" and config["rank_pattern"] == {}
    shapes = {
        name: x.shape for name, x in load_file(tmp_path / "adapter_model.safetensors").items()
    }
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    assert shapes == {
        name.format(i, x): (3, 16) if x == "A" else (16, 3) for i in (0, 1) for x in "AB"
    }


def test_a_name_two_matrices_share_is_written_longer(bases, tmp_path):
    save_adapter(trained(bases["gpt2"], targets="attn[.]o"), tmp_path, "base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["attn.c_proj"] and config["fan_in_fan_out"]


def test_the_scalar_head_travels_with_the_adapters(tmp_path):
    one, other = base(LLAMA, 0, value_head=True), base(LLAMA, 1, value_head=True)
    save_adapter(trained(one), tmp_path, "base")
    loaded = load_adapter(other, tmp_path)
    np.testing.assert_array_equal(loaded.value.kernel[...], one.value.kernel[...])
    assert not jnp.allclose(other.value.kernel[...], one.value.kernel[...])
    with pytest.raises(ValueError, match=r"score\.weight.*value_head=True"):
        load_adapter(base(LLAMA), tmp_path)


@pytest.mark.parametrize(
    "field, value",
    [
        ("bias", "all"),
        ("use_dora", True),
        ("modules_to_save", ["mlp"]),
        ("init_lora_weights", "pissa"),
        ("peft_type", "LOHA"),
    ],
)
def test_what_is_not_a_plain_lora_is_refused_by_name(bases, tmp_path, field, value):
    save_adapter(trained(bases["llama"], targets="q"), tmp_path, "base")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=f"{field}={value!r}".replace("[", r"\[")):
        load_adapter(bases["llama"], tmp_path)


def _without_layer_1(t):
    return {name: x for name, x in t.items() if "layers.1" not in name}


def _with_nan(t):
    return {name: x * np.nan for name, x in t.items()}


def _with_more(t):
    return t | {"base_model.model.lm_head.lora_A.weight": np.ones((3, 16), np.float32)}


def _wider(t):
    return {n: np.ones((24, 3), np.float32) if "lora_B" in n else x for n, x in t.items()}


@pytest.mark.parametrize(
    "change, message",
    [
        (_without_layer_1, "only some layers"),
        (_with_nan, "not finite.*q_proj"),
        (_with_more, "no place for.*lm_head"),
        (_wider, "16 x 3 and 3 x 24, but the matrix is 16 x 16: another base model"),
        (lambda t: {"x": np.zeros(1)}, "no place for x"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(bases, tmp_path, change, message):
    save_adapter(trained(bases["llama"], targets="q"), tmp_path, "base")
    path = tmp_path / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(ValueError, match=message):
        load_adapter(bases["llama"], tmp_path)


def test_a_folder_that_is_no_adapter_is_refused(bases, tmp_path):
    with pytest.raises(ValueError, match=r"has no adapter_config\.json"):
        load_adapter(bases["llama"], tmp_path)
    save_adapter(trained(bases["llama"], targets="q"), tmp_path, "base")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"12345678 not tensors")
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_adapter(bases["llama"], tmp_path)


def test_a_model_without_adapters_has_nothing_to_save(bases, tmp_path):
    with pytest.raises(ValueError, match="no LoRA adapters to save"):
        save_adapter(bases["llama"], tmp_path, "base")


def changed(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_alpha_patterns_are_read(bases, tmp_path):
    save_adapter(trained(bases["llama"], targets="q"), tmp_path, "base")
    changed(tmp_path, alpha_pattern={"q_proj": 7.0})
    assert adapters(load_adapter(bases["llama"], tmp_path))["layers.attn.q"].alpha == 7.0


def test_ranks_and_scales_of_single_layers_are_read_and_written_back(bases, tmp_path):
    save_adapter(trained(bases["llama"], targets="q"), tmp_path, "base")
    path = tmp_path / "adapter_model.safetensors"
    tensors, name = load_file(path), "base_model.model.model.layers.1.self_attn.q_proj"
    a, b = (tensors[f"{name}.lora_{x}.weight"] for x in "AB")
    tensors |= {f"{name}.lora_A.weight": a[:2], f"{name}.lora_B.weight": b[:, :2]}
    tensors = {n: np.ascontiguousarray(x) for n, x in tensors.items()}
    save_file(tensors, path)
    changed(tmp_path, alpha_pattern={"layers.1.self_attn.q_proj": 8.0})
    model = load_adapter(bases["llama"], tmp_path)
    delta = adapters(model)["layers.attn.q"].delta()
    np.testing.assert_allclose(delta[1], 8 / 2 * (b[:, :2] @ a[:2]).T, rtol=1e-5)
    first = [tensors[f"{name.replace('1', '0')}.lora_{x}.weight"] for x in "BA"]
    np.testing.assert_allclose(delta[0], 5 / 3 * (first[0] @ first[1]).T, rtol=1e-5)

    save_adapter(model, tmp_path / "again", "base")
    shapes = {n: x.shape for n, x in load_file(tmp_path / "again" / path.name).items()}
    assert shapes == {n: x.shape for n, x in tensors.items()}
    again = adapters(load_adapter(bases["llama"], tmp_path / "again"))["layers.attn.q"]
    np.testing.assert_allclose(again.delta(), delta, rtol=1e-5)


def test_layers_that_the_config_leaves_out_stay_without_an_adapter(bases, tmp_path):
    save_adapter(trained(bases["llama"], targets="q|v"), tmp_path, "base")
    path = tmp_path / "adapter_model.safetensors"
    save_file({n: x for n, x in load_file(path).items() if "layers.0" not in n}, path)
    with pytest.raises(ValueError, match="only some layers have an adapter"):
        load_adapter(bases["llama"], tmp_path)
    changed(tmp_path, layers_to_transform=[1])
    model = load_adapter(bases["llama"], tmp_path)
    delta = adapters(model)["layers.attn.v"].delta()
    assert not delta[0].any() and delta[1].any()
    save_adapter(model, tmp_path / "again", "base")
    names = [f"model.layers.1.self_attn.{x}_proj" for x in "qv"]
    config = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert config["target_modules"] == names and config["rank_pattern"] == {}
    assert load_file(tmp_path / "again" / path.name).keys() == load_file(path).keys()


def test_pickled_adapters_are_refused_with_a_way_out(bases, tmp_path):
    save_adapter(trained(bases["llama"], targets="q"), tmp_path, "base")
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"adapter_model\.bin, which can run code.*save it"):
        load_adapter(bases["llama"], tmp_path)


def test_tables_of_other_sizes_are_refused(bases, tmp_path):
    save_adapter(trained(bases["llama"], targets="q"), tmp_path, "base")
    path = tmp_path / "adapter_model.safetensors"
    table = {"base_model.model.model.embed_tokens.weight": np.ones((33, 16), np.float32)}
    save_file(load_file(path) | table, path)
    assert vocabulary_of(tmp_path) == 33
    with pytest.raises(
        ValueError, match=r"embed_tokens is \[33, 16\], lm_head is \[31, 16\].*resized"
    ):
        load_adapter(bases["llama"], tmp_path)


PEFT_CASES = [
    ("llama", "(attn|mlp)[.].*", ["q_proj", "v_proj", "down_proj"], False),
    ("phi3", "q|v|up|down", ["qkv_proj", "o_proj"], True),
    ("gpt2", "attn[.].*", "transformer.*(c_attn|mlp.c_proj)", False),
]


@pytest.mark.filterwarnings("ignore")  # of torch, transformers and peft
@pytest.mark.parametrize("kind, targets, theirs, stabilised", PEFT_CASES)
def test_peft_reads_what_we_write_and_we_read_what_peft_writes(
    bases, tmp_path, kind, targets, theirs, stabilised
):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    hub.save(bases[kind], tmp_path / "base")
    ids = torch.tensor(TOKENS)

    def from_disk():
        return AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)

    with torch.no_grad():
        ours = trained(bases[kind], targets=targets, rank_stabilized=stabilised)
        save_adapter(ours, tmp_path / "ours", str(tmp_path / "base"))
        read = peft.PeftModel.from_pretrained(from_disk(), tmp_path / "ours").eval()
        np.testing.assert_allclose(read(ids).logits.numpy(), logits(ours), atol=2e-5)

        options = peft.LoraConfig(
            r=3, lora_alpha=5, target_modules=theirs, use_rslora=stabilised, task_type="CAUSAL_LM"
        )
        written = peft.get_peft_model(from_disk(), options).eval()
        for name, parameter in written.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        written.save_pretrained(tmp_path / "theirs")
        loaded = load_adapter(bases[kind], tmp_path / "theirs")
        np.testing.assert_allclose(logits(loaded), written(ids).logits.numpy(), atol=2e-5)
    assert np.abs(logits(loaded) - logits(bases[kind])).max() > 1e-2


SEPARATE, FUSED = "q|v|o|gate|down", "q|gate|up|down"


@pytest.mark.filterwarnings("ignore")  # of torch, transformers and peft
@pytest.mark.parametrize(
    ("name", "targets"),
    [
        *((name, SEPARATE) for name in ("smollm3", "olmo2", "olmo3", "granite", "cohere2")),
        *((name, SEPARATE) for name in ("ministral", "ministral3")),
        *((name, FUSED) for name in ("glm", "glm4", "phi4")),
        ("qwen3_5", "q|z|a|o|down"),
    ],
)
def test_adapters_of_newer_families_go_to_peft_and_come_back(tmp_path, name, targets):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    def from_disk(folder):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def logits_of_merged(model, folder):  # by transformers: there is nothing to compile
        hub.save(merge(model), folder)
        return from_disk(folder)(ids).logits.numpy()

    model, ids = hub.load(GOLDEN / name), torch.tensor(TOKENS)
    ours = trained(model, targets=targets)
    save_adapter(ours, tmp_path / "ours", name)
    theirs = peft.PeftModel.from_pretrained(from_disk(GOLDEN / name), tmp_path / "ours").eval()
    with torch.no_grad():
        first = theirs(ids).logits.numpy()
        np.testing.assert_allclose(logits_of_merged(ours, tmp_path / "a"), first, atol=2e-4)
        for path, parameter in theirs.named_parameters():
            if "lora_B" in path:
                parameter.normal_()
        theirs.save_pretrained(tmp_path / "theirs")
        back = load_adapter(model, tmp_path / "theirs")
        then = theirs(ids).logits.numpy()
        np.testing.assert_allclose(logits_of_merged(back, tmp_path / "b"), then, atol=2e-4)
    assert np.abs(then - first).max() > 1e-2


TABLES = {
    "lora on the embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "lora on the unembedding": {"target_modules": ["q_proj", "lm_head"]},
    "another embedding": {"modules_to_save": ["embed_tokens"]},
    "another unembedding": {"modules_to_save": ["lm_head"]},
    "both": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "both, tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "some tokens": {"trainable_token_indices": [3, 7]},
    "resized": {"rows": 34},
    "resized and both": {"rows": 34, "modules_to_save": ["lm_head", "embed_tokens"]},
    "layers": {
        "target_modules": ["q_proj", "v_proj"],
        "layers_to_transform": [1],
        "rank_pattern": {"layers.1.self_attn.q_proj": 5},
        "alpha_pattern": {"layers.1.self_attn.v_proj": 9},
    },
}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def saved_base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    hub.save(base(LLAMA | {"tie_word_embeddings": request.param}), folder)
    return folder, hub.load(folder)


@pytest.mark.filterwarnings("ignore")  # of torch, transformers and peft
@pytest.mark.parametrize("name", TABLES)
def test_what_peft_has_for_embedding_and_unembedding_is_the_same_here(saved_base, tmp_path, name):
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    options = {"target_modules": ["q_proj"]} | TABLES[name]
    rows, (folder, ours) = options.pop("rows", 31), saved_base
    ids = torch.tensor(TOKENS)

    def from_disk(path):
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    def resized():
        model = from_disk(folder)
        if rows != 31:
            model.resize_token_embeddings(rows, mean_resizing=False)
        return model

    with torch.no_grad():
        options = peft.LoraConfig(r=3, lora_alpha=5, task_type="CAUSAL_LM", **options)
        written = peft.get_peft_model(resized(), options).eval()
        torch.manual_seed(0)
        for parameter in written.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
        written.save_pretrained(tmp_path / "theirs")
        expected = written(ids).logits.numpy()

        model = load_adapter(ours, tmp_path / "theirs")
        assert (vocabulary_of(tmp_path / "theirs") or 31) == model.spec.vocab_size == rows
        hub.save(merge(model), tmp_path / "merged")
        merged = from_disk(tmp_path / "merged")(ids).logits.numpy()
        np.testing.assert_allclose(merged, expected, atol=2e-6)

        save_adapter(model, tmp_path / "ours", str(folder))
        read = peft.PeftModel.from_pretrained(resized(), tmp_path / "ours").eval()
        np.testing.assert_allclose(read(ids).logits.numpy(), expected, atol=2e-6)
