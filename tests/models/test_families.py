"""Every family gives what transformers gives, and every number of its config matters."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import (
    GOLDEN,
    NAMES,
    forward,
    golden_outputs,
    logits_of,
    maker,
    positions_of,
)

from jalign.models import hub
from jalign.models.delta.spec import DeltaNet
from jalign.models.families import FAMILIES, family_of
from jalign.models.rope import QueryGrowth, Rope

TOLERANCE = 2e-4


def assert_same_as(model, golden):
    """Compare logits; on failure say which layer differs first."""
    difference = np.abs(logits_of(model, golden["tokens"]) - golden["logits"]).max()
    if difference < TOLERANCE:
        return
    tokens = jnp.asarray(golden["tokens"])
    hidden = np.asarray(model.hidden_by_layer(tokens, positions_of(tokens)))
    ours = [*hidden[:-1], np.asarray(forward(model, tokens)[0])]
    places = ["the embeddings", *(f"layer {i}" for i in range(len(ours) - 2)), "the final norm"]
    errors = [np.abs(a - b).max() for a, b in zip(ours, golden["hidden"], strict=True)]
    first = next((p for p, e in zip(places, errors, strict=True) if e > TOLERANCE), "the head")
    pytest.fail(f"logits differ by {difference:.2e}; first in {first} (errors {errors})")


@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_those_of_transformers_rebuilt_now(name, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    make = maker()
    theirs = make.build(name, seed=1)
    theirs.save_pretrained(tmp_path)
    tokens = make.tokens_for(theirs.config.vocab_size)
    assert_same_as(hub.load(tmp_path), make.outputs(theirs, tokens))


def test_there_is_a_golden_model_of_every_family():
    configs = (json.loads((GOLDEN / name / "config.json").read_text()) for name in NAMES)
    assert {config["model_type"] for config in configs} == set(FAMILIES)


ROPES = json.loads((GOLDEN / "gemma3_text" / "config.json").read_text())["rope_parameters"]
LLAMA3 = json.loads((GOLDEN / "llama3" / "config.json").read_text())["rope_parameters"]
CHANGES = [
    ("llama", {"rms_norm_eps": 0.1}),
    ("llama", {"hidden_act": "gelu"}),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
    *[("llama3", {"rope_parameters": LLAMA3 | {k: 2.0}}) for k in ("factor", "low_freq_factor")],
    ("llama3", {"rope_parameters": LLAMA3 | {"high_freq_factor": 8.0}}),
    ("llama3", {"rope_parameters": LLAMA3 | {"original_max_position_embeddings": 32}}),
    ("mistral", {"sliding_window": 9}),
    ("mistral", {"sliding_window": None}),
    ("gemma", {"hidden_act": "silu"}),
    ("gemma2", {"query_pre_attn_scalar": 10}),
    ("gemma2", {"attn_logit_softcapping": 6.0}),
    ("gemma2", {"final_logit_softcapping": 4.0}),
    ("gemma2", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
    ("gemma3_text", {"final_logit_softcapping": 30.0}),
    ("gemma3_text", {"rope_parameters": ROPES | {"full_attention": ROPES["sliding_attention"]}}),
    ("gemma3_text", {"rope_parameters": ROPES | {"sliding_attention": ROPES["full_attention"]}}),
    ("qwen2", {"max_window_layers": 2, "layer_types": None}),
    ("qwen2", {"use_sliding_window": False}),
    ("phi3", {"rope_parameters": {"rope_theta": 1000.0, "partial_rotary_factor": 0.25}}),
    ("gpt2", {"activation_function": "relu"}),
    ("gpt2", {"layer_norm_epsilon": 0.1}),
    ("gpt2", {"scale_attn_weights": False}),
]


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_a_changed_config_changes_the_logits(name, change, tmp_path):
    shutil.copytree(GOLDEN / name, tmp_path, dirs_exist_ok=True)
    config = json.loads((GOLDEN / name / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    golden, model = golden_outputs(name), hub.load(tmp_path, attention="xla")
    assert np.abs(logits_of(model, golden["tokens"]) - golden["logits"]).max() > 1e-3


LAYERS = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
F, T = False, True
READ = [  # name, what differs from its golden config, and the fields of the architecture
    ("smollm3", {"no_rope_layers": [0, 1, 1, 0, 1]}, {"no_rope": (T, F, F, T, F)}),
    (
        "smollm3",
        {"no_rope_layers": None, "no_rope_layer_interval": 2},
        {"no_rope": (F, T, F, T, F)},
    ),
    (
        "smollm3",  # as transformers gives layers a window: those without a rotary embedding
        {"layer_types": None, "use_sliding_window": True, "sliding_window": 7},
        {"window": 7, "windowed": (F, F, F, T, F)},
    ),
    ("smollm3", {"rope_parameters": None}, {"rope": Rope(2e6), "window": None}),
    ("olmo2", {"attention_bias": True}, {"qkv_bias": True, "o_bias": True, "window": None}),
    ("olmo3", {"layer_types": None, "sliding_window": 9}, {"windowed": (T, T, T, F), "window": 9}),
    ("olmo3", {}, {"local_rope": Rope(500.0), "context": 64}),
    ("granite", {"residual_multiplier": 0.25}, {"residual_scale": 0.25}),
    ("granite", {"logits_scaling": 8.0}, {"logit_scale": 0.125}),
    ("granite", {"embedding_multiplier": 12.0}, {"embed_scale": 12.0}),
    ("granite", {"attention_multiplier": 0.0078125}, {"attn_scale": 0.0078125}),
    ("cohere2", {"layer_types": LAYERS}, {"windowed": (F, T, F, T), "no_rope": (T, F, T, F)}),
    ("cohere2", {"layer_types": None, "sliding_window_pattern": 2}, {"no_rope": (F, T, F, T)}),
    ("cohere2", {"layer_norm_eps": 0.1, "logit_scale": 0.3}, {"norm_eps": 0.1, "logit_scale": 0.3}),
    ("cohere2", {"head_dim": 99}, {"head_dim": 8, "rope": Rope(interleaved=True)}),
    ("ministral", {"layer_types": LAYERS}, {"windowed": (F, T, F, T)}),
    ("ministral", {"layer_types": None}, {"windowed": (), "window": 8}),
    ("ministral", {"sliding_window": None}, {"windowed": (), "window": None}),
    ("glm", {"attention_bias": False}, {"qkv_bias": False, "o_bias": False, "post_norms": False}),
    ("qwen3_5", {"layer_types": None, "full_attention_interval": 2}, {"delta_layers": (T, F) * 3}),
    (
        "qwen3_5",
        {"rope_parameters": None, "linear_num_value_heads": 6},
        {"rope": Rope(fraction=0.25), "delta": DeltaNet(2, 6, 6, 10, 3)},
    ),
    ("glm4", {}, {"qkv_bias": True, "o_bias": False, "post_norms": True}),
    ("glm4", {"rope_parameters": None}, {"rope": Rope(fraction=0.5, interleaved=True)}),
]


@pytest.mark.parametrize(("name", "change", "fields"), READ)
def test_a_config_is_read_as_by_transformers(name, change, fields):
    config = json.loads((GOLDEN / name / "config.json").read_text()) | change
    spec = family_of(config).spec(config)
    assert {field: getattr(spec, field) for field in fields} == fields


def test_queries_of_ministral_3_grow_after_the_original_context():
    config = json.loads((GOLDEN / "ministral3" / "config.json").read_text())
    assert family_of(config).spec(config).rope.query_growth == QueryGrowth(0.5, 8)
    # transformers' own values, where a config gives none
    rope = family_of(config).spec(config | {"rope_parameters": None}).rope
    assert rope.query_growth == QueryGrowth(0.1, 16384)
    assert (rope.base, rope.factor, rope.multiplier) == (1e6, 16.0, 1.0)
    plain = {"rope_type": "default", "rope_theta": 100.0}
    assert family_of(config).spec(config | {"rope_parameters": plain}).rope == Rope(100.0)


def test_a_scalar_model_that_transformers_has_no_class_for_is_not_saved(tmp_path):
    model = hub.load(GOLDEN / "granite", value_head=True)
    with pytest.raises(ValueError, match="no sequence classification of granite"):
        hub.save(model, tmp_path)


def test_configs_of_transformers_4_mean_the_same():
    new = json.loads((GOLDEN / "gemma3_text" / "config.json").read_text())
    gone = ("rope_parameters", "layer_types", "_sliding_window_pattern")
    old = {k: v for k, v in new.items() if k not in gone} | {
        "rope_theta": 10000.0,
        "rope_local_base_freq": 100.0,
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "sliding_window_pattern": 6,
    }
    assert family_of(old).spec(old) == family_of(new).spec(new)
    new = json.loads((GOLDEN / "llama3" / "config.json").read_text())
    old = {k: v for k, v in new.items() if k != "rope_parameters"}
    old |= {"rope_theta": LLAMA3["rope_theta"], "rope_scaling": LLAMA3}
    assert family_of(old).spec(old) == family_of(new).spec(new)
    new = json.loads((GOLDEN / "olmo3" / "config.json").read_text())
    old = {k: v for k, v in new.items() if k != "rope_parameters"} | {"rope_theta": 500.0}
    old |= {"rope_scaling": new["rope_parameters"]["full_attention"]}
    assert family_of(old).spec(old) == family_of(new).spec(new)
    new = json.loads((GOLDEN / "glm4" / "config.json").read_text())
    old = {k: v for k, v in new.items() if k != "rope_parameters"} | {"rope_theta": 10000.0}
    assert family_of(old).spec(old) == family_of(new).spec(new)


def test_early_gemma_configs_that_say_gelu_mean_its_tanh_approximation():
    config = json.loads((GOLDEN / "gemma" / "config.json").read_text()) | {"hidden_act": "gelu"}
    assert family_of(config).spec(config).activation == "gelu_tanh"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["LamaForCausalLM"]}, "did you mean 'LlamaForCausalLM'"),
        ({"architectures": ["T5Model"]}, "there is: Cohere2ForCausalLM, GPT2"),
        ({"architectures": None, "model_type": "lama"}, "did you mean 'llama'"),
        ({"auto_map": {"AutoModel": "mine.Model"}}, "its own Python code"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"rope_parameters": {"rope_type": "mrope"}}, "'mrope' is not supported; there is: "),
        ({"rope_parameters": {"rope_type": "longrope"}}, "'longrope' needs 'short_factor'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "'linear' needs 'factor'"),
        ({"hidden_act": "sillu"}, "did you mean 'silu'"),
        ({"vocab_size": None}, "must give 'vocab_size'"),
        ({"num_attention_heads": 5}, "do not divide"),
    ],
)
def test_configs_that_cannot_be_read_are_refused(change, message):
    config = json.loads((GOLDEN / "llama" / "config.json").read_text()) | change
    with pytest.raises(ValueError, match=message):
        family_of(config).spec(config)


def test_gpt2_variants_that_differ_are_refused():
    config = json.loads((GOLDEN / "gpt2" / "config.json").read_text())
    with pytest.raises(ValueError, match="scale_attn_by_inverse_layer_idx"):
        family_of(config).spec(config | {"scale_attn_by_inverse_layer_idx": True})
    config = json.loads((GOLDEN / "gemma" / "config.json").read_text())
    with pytest.raises(ValueError, match="encoder"):
        family_of(config).spec(config | {"use_bidirectional_attention": True})
