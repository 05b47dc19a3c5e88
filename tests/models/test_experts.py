"""A mixture of experts: every token gets its own experts, whatever else is in the batch."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import GOLDEN, golden_outputs, logits_of
from flax import nnx

from jalign.algorithms import get
from jalign.formats.router import with_router_losses
from jalign.layout import Layout
from jalign.models import hub
from jalign.models.adapters.lora import add_lora, merge
from jalign.models.adapters.peft import save_adapter
from jalign.models.experts.router import Router
from jalign.models.experts.sparse import SparseMLP
from jalign.models.experts.spec import Experts
from jalign.models.experts.statistics import router_statistics
from jalign.models.families import family_of
from jalign.models.quant import quantize
from jalign.models.score import score

MIXTURE = Experts(count=5, top_k=2, width=6, normalize=True, bias=True, swiglu_limit=0.4)
X = np.random.default_rng(0).normal(size=(9, 8)).astype(np.float32)


def filled(module, seed=0):
    """With parameters that numpy drew."""
    graphdef, state = nnx.split(module)
    draw = np.random.default_rng(seed).normal
    return nnx.merge(graphdef, jax.tree.map(lambda x: jnp.asarray(draw(size=x.shape) * 0.5), state))


def one_layer(module):
    graphdef, state = nnx.split(module)
    return nnx.merge(graphdef, jax.tree.map(lambda x: x[0], state))


def sparse(mixture):
    types = {"dtype": jnp.float32, "param_dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    return one_layer(filled(SparseMLP(8, mixture, activation="silu", layers=1, **types)))


@nnx.jit
def run(mlp, x):
    return mlp(x, None)[0]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def token_by_token(mlp, x, mixture):
    """The output for one token after the other, by numpy."""
    read = lambda linear: (np.asarray(linear.kernel[...]), np.asarray(linear.bias[...]))  # noqa: E731
    (gate, gate_b), (up, up_b), (down, down_b) = map(
        read, (mlp.experts.gate, mlp.experts.up, mlp.experts.down)
    )
    out = []
    for token in x:
        logits = token @ np.asarray(mlp.router.kernel[...]) + np.asarray(mlp.router.bias[...])
        best = np.argsort(-logits)[: mixture.top_k]
        p = np.exp(logits[best]) / np.exp(logits[best]).sum()
        y = 0
        for e, weight in zip(best, p, strict=True):
            g = np.minimum(token @ gate[e] + gate_b[e], mixture.swiglu_limit)
            u = np.clip(token @ up[e] + up_b[e], -mixture.swiglu_limit, mixture.swiglu_limit)
            h = (u + 1) * g * sigmoid(mixture.swiglu_alpha * g)
            y = y + weight * (h @ down[e] + down_b[e])
        out.append(y)
    return np.array(out)


def test_a_token_is_the_weighted_sum_of_its_experts():
    mlp = sparse(MIXTURE)
    np.testing.assert_allclose(run(mlp, X), token_by_token(mlp, X, MIXTURE), atol=1e-5)


def test_no_token_is_dropped_where_all_choose_the_same_experts():
    mlp = sparse(MIXTURE)
    mlp.router.bias[...] = jnp.array([9.0, 0, 0, 9.5, 0])
    np.testing.assert_allclose(run(mlp, X), token_by_token(mlp, X, MIXTURE), atol=1e-5)


def test_other_tokens_change_no_bit_of_a_tokens_output():
    mlp = sparse(MIXTURE)
    order = np.random.default_rng(1).permutation(len(X))
    y = run(mlp, X)
    np.testing.assert_array_equal(run(mlp, X[order]), y[order])
    np.testing.assert_array_equal(run(mlp, X[:4]), y[:4])


def test_probabilities_are_of_all_experts_or_of_the_selected_ones():
    logits = jnp.log(jnp.array([[0.1, 0.4, 0.2, 0.3]]))
    for normalize, want in ((False, [0.4, 0.3]), (True, [4 / 7, 3 / 7])):
        mixture = Experts(count=4, top_k=2, width=1, normalize=normalize)
        router = Router(2, mixture, layers=1, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
        ids, weights = router.select(logits)
        assert ids.tolist() == [[1, 3]]
        np.testing.assert_allclose(weights, [want], rtol=1e-6)
        # Replayed experts keep the router's own probabilities; -1 is its own choice.
        ids, weights = router.select(logits, jnp.array([[2, -1]]))
        assert ids.tolist() == [[2, 3]]
        total = 0.5 if normalize else 1.0
        np.testing.assert_allclose(weights, [[0.2 / total, 0.3 / total]], rtol=1e-6)


def test_a_mixture_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="cannot use 3 of 2 experts"):
        Experts(count=2, top_k=3, width=4)
    config = json.loads((GOLDEN / "qwen3_moe" / "config.json").read_text())
    with pytest.raises(ValueError, match=r"every layer must have experts, .*mlp_only_layers=\[1\]"):
        family_of(config).spec(config | {"mlp_only_layers": [1]})
    config = json.loads((GOLDEN / "olmoe" / "config.json").read_text())
    with pytest.raises(ValueError, match="clip_qkv=3"):
        family_of(config).spec(config | {"clip_qkv": 3.0})


def test_statistics_of_a_router_are_those_of_each_response():
    """Two responses in one stream: the first uses one expert alone, the second all alike."""
    p = np.array([[0.7, 0.1, 0.1, 0.1], [0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]])
    logits = jnp.log(jnp.asarray(p))[None, None] + 0.5  # [L, S, N, E]; log sum exp is 0.5
    # A prompt of token 0; tokens 1 and 2 are the first response, predicted at 0 and 1.
    at, before = jnp.array([[1, 2, 2]]), jnp.array([[0, 1, 2]])
    slots = jnp.array([[[[0, 1], [2, 0]]]])  # [S, P, K, R]; the second response has one token
    layout = Layout(None, None, before, at, slots)
    balance, z, entropy, load = router_statistics(logits, layout, top_k=1)
    # f = 4 for expert 0 in the first, for expert 3 in the second.
    np.testing.assert_allclose(balance, [[4 * 0.7, 4 * 0.4, 4 * 0.4]], rtol=1e-5)
    np.testing.assert_allclose(load, [[4, 4, 4]])
    np.testing.assert_allclose(z, np.full((1, 3), 0.25), rtol=1e-5)
    np.testing.assert_allclose(entropy, [-(p * np.log(p)).sum(-1)], rtol=1e-5)
    two = router_statistics(logits, layout, top_k=2)
    # Experts 0 and one of the equal ones, then 0 and 1: f = 2 * (1, 1, 0, 0).
    np.testing.assert_allclose(two.balance[0, :2], [2 * 0.8, 2 * 0.7], rtol=1e-5)
    assert two.load[0, 0] == 2


@pytest.fixture(scope="module")
def mixtral():
    return hub.load(GOLDEN / "mixtral")


def test_adapters_of_experts_merge_and_those_of_attention_alone_are_written(mixtral, tmp_path):
    tokens = golden_outputs("mixtral")["tokens"]
    model = add_lora(mixtral, rank=3, alpha=6.0, targets=r"experts\..*|attn\.q", rngs=nnx.Rngs(0))
    for i, linear in enumerate((model.layers.mlp.experts.down, model.layers.attn.q)):
        b = linear.lora.b
        b[...] = jnp.asarray(np.random.default_rng(i).normal(size=b.shape) * 0.2, jnp.float32)
    adapted = logits_of(model, tokens)
    assert np.abs(adapted - golden_outputs("mixtral")["logits"]).max() > 0.05
    np.testing.assert_allclose(logits_of(merge(model), tokens), adapted, atol=1e-4)
    with pytest.raises(ValueError, match=r"adapters of experts \(layers\.mlp\.experts\.down, "):
        save_adapter(model, tmp_path, "base")
    attention = r"layers\.(attn\.(q|k|v|o)|mlp\.(gate|up|down))"  # the default of a run
    model = add_lora(mixtral, rank=3, alpha=6.0, targets=attention, rngs=nnx.Rngs(0))
    save_adapter(model, tmp_path, "base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]


def test_experts_are_stored_in_8_bits_but_not_multiplied_in_them(mixtral):
    tokens = golden_outputs("mixtral")["tokens"]
    small = quantize(mixtral, "int8")
    assert small.layers.mlp.experts.gate.kernel.parts["codes"].dtype == jnp.int8
    error = np.abs(logits_of(small, tokens) - golden_outputs("mixtral")["logits"]).max()
    assert 1e-4 < error < 0.1
    with pytest.raises(ValueError, match="w8a8 has no product of experts in 8 bits: use nf4"):
        quantize(mixtral, "w8a8")


def test_a_spec_without_a_mixture_has_no_router():
    dense = hub.load(GOLDEN / "llama")
    assert dataclasses.replace(dense.spec, experts=None) == dense.spec
    with pytest.raises(ValueError, match="no experts, and so no router"):
        dense.with_router(jnp.zeros((1, 2), int), jnp.zeros((1, 2), int))
    with pytest.raises(ValueError, match="router statistics need a model with experts"):
        score(dense, Layout(*[None] * 5), ("router",))
    with pytest.raises(ValueError, match=r"model\.router_z must be at least 0, got -1"):
        with_router_losses(get("dpo"), balance=0.0, z=-1.0)
    assert with_router_losses(get("dpo"), balance=0.0, z=0.0) is get("dpo")
