"""Layers with a state in the place of attention, beside others with attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import GOLDEN, forward, positions_of
from flax import nnx

from jalign.layout import Inverse
from jalign.models import hub, stacks
from jalign.models.adapters.lora import adapters, add_lora
from jalign.models.delta.spec import DeltaNet
from jalign.models.prune import first_layers
from jalign.models.spec import Spec
from jalign.rollout.groups import respond
from jalign.rollout.refill import respond_refilling
from jalign.rollout.sampler import Settings
from tests.rollout._tiny import KEY, tiny

# Five layers of a period of two: two whole periods and one layer left, which has no attention.
SPEC = Spec(
    vocab_size=23,
    width=16,
    depth=5,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp_width=24,
    qk_norm=True,
    attn_gate=True,
    delta=DeltaNet(key_heads=2, value_heads=4, key_dim=3, value_dim=5, conv=3),
    delta_layers=(True, False, True, False, True),
)
TOKENS = np.random.default_rng(0).integers(0, 23, (3, 14))


@pytest.fixture(scope="module")
def model():
    model = nnx.merge(*tiny(spec=SPEC))
    model.unroll, model.attention = False, "xla"
    return model


def test_every_part_is_stacked_over_the_layers_that_have_it(model):
    assert SPEC.period == 2
    assert (SPEC.layers_of("attn"), SPEC.layers_of("delta")) == ((1, 3), (0, 2, 4))
    shapes = (model.layers.attn.o.kernel, model.layers.delta.o.kernel, model.layers.mlp.up.kernel)
    assert [x.shape[0] for x in shapes] == [2, 3, 5]
    assert stacks.cache_indices(SPEC) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"delta": None}, "give both or neither"),
        ({"delta_layers": (True,) * 5}, "one layer at least must have attention"),
        ({"delta_layers": (True, False)}, "delta_layers names 2 layers, depth is 5"),
    ],
)
def test_layers_that_do_not_fit_their_sizes_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **change)
    with pytest.raises(ValueError, match="3 heads of values do not divide into 2 of keys"):
        dataclasses.replace(SPEC.delta, value_heads=3)


def test_cached_decoding_of_ragged_rows_equals_the_forward_pass_without_a_cache(model):
    tokens, lengths = jnp.asarray(TOKENS), jnp.array([8, 1, 5])
    hidden = forward(model, tokens)[0]
    prompt = jnp.where(jnp.arange(8) < lengths[:, None], jnp.arange(8), -1)
    found, _, cache = forward(model, tokens[:, :8], prompt, cache=model.empty_cache(3, 16))
    assert cache.slots == 16
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(found[row, :n], hidden[row, :n], atol=1e-5)
    for count in (1, 3):  # a single token, then three at once, of which the last row has two
        at = cache.lengths[:, None] + jnp.arange(count)
        at = jnp.where((jnp.arange(3) == 2)[:, None] & (jnp.arange(count) == 2), -1, at)
        new = jnp.take_along_axis(tokens, jnp.maximum(at, 0), 1)
        found, _, cache = forward(model, new, at, cache=cache)
        should = hidden[jnp.arange(3)[:, None], at]
        real = np.asarray(at) >= 0
        np.testing.assert_allclose(found[real], should[real], atol=1e-5)
    at = jnp.array([[12], [5], [8]])
    found, _, _ = forward(model, jnp.take_along_axis(tokens, at, 1), at, cache=cache)
    np.testing.assert_allclose(found[:, 0], hidden[jnp.arange(3), at[:, 0]], atol=1e-5)


def test_a_row_without_new_tokens_keeps_its_state(model):
    tokens = jnp.asarray(TOKENS)
    cache = forward(model, tokens[:, :9], cache=model.empty_cache(3, 16))[2]
    after = forward(model, tokens[:, 9:10], jnp.array([[9], [-1], [9]]), cache=cache)[2]
    for before, then in zip(cache.kv.delta, after.kv.delta, strict=True):
        np.testing.assert_array_equal(then[:, 1], before[:, 1])
        assert np.abs(then[:, 0] - before[:, 0]).max() > 1e-3


def test_a_flat_stream_with_a_shared_prompt_equals_padded_rows(model):
    prompt, a, b = [7, 8, 9], [10, 11], [12, 13, 14, 15]
    stream = jnp.array([prompt + a + b + [0]])
    positions = jnp.array([[0, 1, 2, 3, 4, 3, 4, 5, 6, 0]])
    rows = jnp.array([[[0, 1, 2, 3, 4, 9, 9], [0, 1, 2, 5, 6, 7, 8]]])
    none = 14
    inverse = [[0, 7], [1, 8], [2, 9], [3, none], [4, none]]
    inverse += [[10, none], [11, none], [12, none], [13, none], [none, none]]
    inverse = Inverse(*jnp.split(jnp.array([inverse]), [1], axis=-1))
    inverse = inverse._replace(first=inverse.first[..., 0])
    run = jax.jit(lambda model: model(stream, positions, rows=rows, inverse=inverse)[0])
    flat, padded = run(model), jnp.array([prompt + a + [0, 0], prompt + b])
    by_row = forward(model, padded)[0]
    np.testing.assert_allclose(flat[0, :5], by_row[0, :5], atol=1e-5)
    np.testing.assert_allclose(flat[0, 5:9], by_row[1, 3:], atol=1e-5)


def test_every_parameter_has_a_gradient(model):
    graphdef, state = nnx.split(model)
    tokens = jnp.asarray(TOKENS[:, :6])

    @jax.jit
    def gradient(state):
        def loss(state):
            return jnp.sum(jnp.sin(nnx.merge(graphdef, state)(tokens, positions_of(tokens))[0]))

        return jax.grad(loss)(state)

    for path, x in jax.tree_util.tree_flatten_with_path(gradient(state))[0]:
        if "value" not in str(path) and "lm_head" not in str(path):
            assert np.abs(x).max() > 0 and np.isfinite(x).all(), path


def test_greedy_responses_are_the_argmax_of_full_passes_and_rows_may_be_refilled():
    weights = tiny(spec=SPEC)
    prompts = [np.arange(1, 1 + n) for n in (3, 1, 5, 2)]
    settings = Settings(max_new_tokens=5, temperature=0.0)
    told = respond(weights, prompts, settings, KEY, batch_size=4)
    model = nnx.merge(*weights)
    responses = [ids.tolist() for ids in told.responses()]
    rows = [[*p.tolist(), *r] for p, r in zip(prompts, responses, strict=True)]
    padded = np.zeros((4, 10), np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    logits = np.asarray(forward(model, padded)[1])
    for i, (p, r) in enumerate(zip(prompts, responses, strict=True)):
        assert logits[i, len(p) - 1 : len(p) - 1 + len(r)].argmax(-1).tolist() == r
    again = respond_refilling(weights, prompts, settings, KEY, rows=2, chunk=2)
    assert [ids.tolist() for ids in again.responses()] == responses


def test_adapters_and_the_first_layers_alone(model):
    adapted = add_lora(model, rank=2, alpha=4.0, targets="delta[.].*", rngs=nnx.Rngs(1))
    shapes = {path: lora.a.shape for path, lora in adapters(adapted).items()}
    assert shapes == {f"layers.delta.{x}": (3, 16, 2) for x in "qkvzab"} | {
        "layers.delta.o": (3, 20, 2)
    }
    short = first_layers(model, 3)
    assert short.spec.delta_layers == (True, False, True)
    shapes = (short.layers.attn.o.kernel, short.layers.delta.o.kernel, short.layers.mlp.up.kernel)
    assert [x.shape[0] for x in shapes] == [1, 2, 3]
    np.testing.assert_array_equal(short.layers.delta.conv, model.layers.delta.conv[:2])
    with pytest.raises(ValueError, match="cannot be batch-invariant"):
        model.set_batch_invariant()


def test_heads_that_predict_several_tokens_are_left_out(tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = GOLDEN / "qwen3_5"
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"mtp.fc.weight": np.ones((2, 2), np.float32)}, tmp_path / "model.safetensors"
    )
    assert hub.load(tmp_path).spec.delta_layers == (True, True, False) * 2
