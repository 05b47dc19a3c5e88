"""Stretched rotary embeddings are those of transformers, in rows of any length and with a cache."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import GOLDEN, forward, golden_outputs, logits_of

from jalign.layout import Inverse
from jalign.models import hub
from jalign.models.cache import KVCache
from jalign.models.families import family_of
from jalign.models.rope import Rope, row_lengths
from jalign.models.rope_stretched import DynamicNTK, LongRope

LLAMA = json.loads((GOLDEN / "llama3" / "config.json").read_text())  # heads of 12
PHI3 = json.loads((GOLDEN / "phi3" / "config.json").read_text())  # 4 of 8 features turn
BASE = {"rope_theta": 5000.0}
YARN = BASE | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.3, 1.5, 1.7, 2.0],
    "long_factor": [1.5, 2.0, 3.0, 5.0, 7.0, 9.0],
    "original_max_position_embeddings": 8,
}
PHI = LONG | {"short_factor": [1.1, 1.7], "long_factor": [3.0, 7.0]}

CONFIGS = {
    "llama3": LLAMA,
    "linear": LLAMA | {"rope_parameters": BASE | {"rope_type": "linear", "factor": 3.0}},
    "yarn of some features": LLAMA | {"rope_parameters": YARN | {"partial_rotary_factor": 0.5}},
    "yarn": LLAMA | {"rope_parameters": YARN},
    "yarn without factor": LLAMA | {"rope_parameters": YARN | {"factor": None}},
    "yarn of deepseek": LLAMA
    | {
        "rope_parameters": YARN
        | {"mscale": 0.7, "mscale_all_dim": 1.3, "beta_fast": 4, "beta_slow": 2}
    },
    "yarn not truncated": LLAMA
    | {"rope_parameters": YARN | {"truncate": False, "attention_factor": 1.2, "beta_fast": 3}},
    "longrope": LLAMA | {"rope_parameters": BASE | LONG},
    "longrope with factors": LLAMA
    | {"rope_parameters": BASE | LONG | {"factor": 3.0, "attention_factor": 0.9}},
    "longrope of phi3": PHI3
    | {
        "rope_parameters": BASE | PHI | {"partial_rotary_factor": 0.5},
        "original_max_position_embeddings": 10,
    },
    "dynamic": LLAMA
    | {"rope_parameters": BASE | {"rope_type": "dynamic", "factor": 3.0}}
    | {"max_position_embeddings": 9},
}


@pytest.mark.filterwarnings("ignore")  # of torch and transformers
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tokens", [7, 30, 60])
def test_angles_are_those_of_transformers(name, tokens):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
    from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

    config = json.loads(json.dumps(CONFIGS[name]))
    spec = family_of(config).spec(config)
    phi3 = "phi3" in name
    kind = transformers.Phi3Config if phi3 else transformers.LlamaConfig
    embedding = Phi3RotaryEmbedding if phi3 else LlamaRotaryEmbedding
    theirs = embedding(kind(**config))
    cos, sin = theirs(torch.zeros(1), torch.arange(tokens)[None])
    positions = jnp.arange(tokens)[None]
    ours = spec.rope.table(positions, spec.head_dim, row_lengths(positions, None, None))
    half = cos.shape[-1] // 2
    for mine, other in zip(ours, (cos, sin), strict=True):
        np.testing.assert_allclose(mine, other[..., :half].numpy(), atol=2e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["yarn", "longrope of phi3"])
def test_logits_are_those_of_transformers_and_the_scaling_is_exported(name, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    source = GOLDEN / ("phi3" if "phi3" in name else "llama3")
    shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[name]))
    model, tokens = hub.load(tmp_path), golden_outputs(source.name)["tokens"]
    hub.save(model, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    )
    with torch.no_grad():
        for n in (7, 20):
            logits = theirs(torch.from_numpy(tokens[:, :n]).long()).logits.numpy()
            np.testing.assert_allclose(logits_of(model, tokens[:, :n]), logits, atol=1e-4)


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_tokens_after_a_cache_see_the_angles_of_all_its_places(rope, tmp_path):
    shutil.copytree(GOLDEN / "llama3", tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[rope]))
    model, tokens = hub.load(tmp_path), golden_outputs("llama3")["tokens"]
    model.unroll = False
    whole = logits_of(model, tokens)
    positions = jnp.broadcast_to(jnp.arange(20), (2, 20))
    cache = KVCache.empty(model.spec, 2, 20, jnp.float32)  # the prompt alone would be short
    _, first, cache = forward(model, tokens[:, :5], positions[:, :5], cache=cache)
    _, then, _ = forward(model, tokens[:, 5:], positions[:, 5:], cache=cache)
    np.testing.assert_allclose(jnp.concatenate([first, then], 1), whole, atol=1e-4)


def test_a_row_has_the_length_of_the_longest_that_shares_its_prompt():
    # a stream: prompt ab, responses cde and f; prompt g, response h; its last place is empty
    positions = jnp.array([[0, 1, 2, 3, 4, 2, 0, 1, 0]])
    rows = jnp.array([[[0, 1, 2, 3, 4], [0, 1, 5, 8, 8], [6, 7, 8, 8, 8], [8, 8, 8, 8, 8]]])
    none = 20
    first, more = [0, 1, 2, 3, 4, 7, 10, 11, none], [[5], [6]]
    inverse = Inverse(jnp.array([first]), jnp.array([more]))
    lengths = row_lengths(positions, rows, inverse)
    np.testing.assert_array_equal(lengths[0, :8], [5, 5, 5, 5, 5, 5, 2, 2])
    np.testing.assert_array_equal(row_lengths(jnp.array([[0, 1, 2, -1]]), None, None), [[3]])


def test_every_row_of_a_batch_has_angles_of_its_own_length():
    long = LongRope(short=(1.0, 1.0), long=(2.0, 4.0), original_tokens=3)
    lengths, positions = jnp.array([[3], [4]]), jnp.ones((2, 1), int)
    cos, _ = long.table(positions, 4, lengths)
    np.testing.assert_allclose(cos[0, 0], np.cos([1.0, 0.01]), atol=1e-6)
    np.testing.assert_allclose(cos[1, 0], np.cos([0.5, 0.0025]), atol=1e-6)
    dynamic = DynamicNTK(factor=2.0, original_tokens=3)
    plain = Rope().table(positions, 4)[0][0]
    np.testing.assert_allclose(dynamic.table(positions, 4, lengths)[0][0], plain, atol=1e-6)
    base = 10000.0 * (2.0 * 4 / 3 - 1.0) ** 2
    cos = dynamic.table(positions, 4, lengths)[0][1, 0]
    np.testing.assert_allclose(cos, np.cos([1.0, base**-0.5]), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "context"),
    [
        ({}, 64),
        ({"rope_parameters": YARN}, 64),
        ({"rope_parameters": YARN | {"factor": 8.0}}, 128),
        ({"rope_parameters": BASE | LONG}, 64),
        ({"rope_parameters": BASE | {"rope_type": "dynamic", "factor": 3.0}}, 192),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None}, 128),
        ({"max_position_embeddings": None, "rope_parameters": None}, None),
    ],
)
def test_the_trained_context_is_that_after_scaling(change, context):
    config = LLAMA | change
    assert family_of(config).spec(config).context == context


def test_a_context_alone_makes_no_other_run():
    config = LLAMA | {"max_position_embeddings": 32}
    spec = family_of(LLAMA).spec(LLAMA)
    assert repr(family_of(config).spec(config)) == repr(spec)
    assert (
        repr(dataclasses.replace(spec, rope=Rope())).count("rope=Rope(base=10000.0, fraction=1.0")
        == 1
    )


def test_factors_that_do_not_fit_the_head_are_refused():
    with pytest.raises(ValueError, match="longrope has 2 factors, but a head turns 3 pairs"):
        LongRope(short=(1.0, 1.0), long=(1.0, 1.0)).table(jnp.arange(2), 6)
