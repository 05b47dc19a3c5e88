"""The decoder computes the same whatever way it is run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_of_models import forward, positions_of
from flax import nnx

from jalign.kernels.remat import REMAT
from jalign.layout import Inverse
from jalign.models.cache import KVCache
from jalign.models.decoder import Decoder
from jalign.models.rope import Rope
from jalign.models.spec import Spec

# five layers with period two: two whole periods and one layer left over
SPEC = Spec(
    vocab_size=50,
    width=16,
    depth=5,
    heads=4,
    kv_heads=2,
    head_dim=6,
    mlp_width=24,
    window=5,
    windowed=(True, False, True, False, True),
    local_rope=Rope(100.0),
    qk_norm=True,
    post_norms=True,
    attn_softcap=4.0,
    tied=False,
)
TOKENS = np.random.default_rng(0).integers(0, 50, (3, 14))


def make(spec=SPEC, unroll=False, **options):  # scans and plain attention compile faster
    return Decoder(spec, unroll=unroll, attention="xla", **options, rngs=nnx.Rngs(0))


@functools.cache
def reference():
    """Hidden states and gradients of the plain scan."""
    return hidden_and_gradients(make())


def hidden_and_gradients(model):
    graphdef, state = nnx.split(model)
    tokens = jnp.asarray(TOKENS)

    @jax.jit
    def run(state):
        def loss(state):
            hidden, _ = nnx.merge(graphdef, state)(tokens, positions_of(tokens))
            return jnp.sum(jnp.sin(hidden)), hidden

        (_, hidden), gradients = jax.value_and_grad(loss, has_aux=True)(state)
        return hidden, gradients

    return jax.tree.map(np.asarray, run(state))


def assert_close(a, b, tolerance=1e-4):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("remat", "unroll"),
    [("none", True), ("full", True), *((remat, False) for remat in sorted(REMAT))],
)
def test_unrolling_and_recomputing_change_neither_values_nor_gradients(remat, unroll):
    assert_close(hidden_and_gradients(make(unroll=unroll, remat=remat)), reference())


def test_a_scan_over_periods_equals_the_layers_one_by_one():
    model = make()
    tokens = jnp.asarray(TOKENS)
    # every layer of a kind of its own: the period is the depth, so nothing is scanned twice
    kinds = dataclasses.replace(SPEC, windowed=(*SPEC.windowed[:4], False))
    assert (SPEC.period, kinds.period) == (2, 5)
    other = make(kinds)
    assert other.hidden_by_layer(tokens, positions_of(tokens)).shape == (6, 3, 14, 16)
    np.testing.assert_allclose(
        model.hidden_by_layer(tokens, positions_of(tokens))[:5],
        other.hidden_by_layer(tokens, positions_of(tokens))[:5],
        atol=1e-5,
    )


@pytest.mark.parametrize("unroll", [True, False])
def test_cached_decoding_of_ragged_rows_equals_the_forward_pass_without_a_cache(unroll):
    model, tokens = make(unroll=unroll), jnp.asarray(TOKENS)
    whole, _, none = forward(model, tokens)
    assert none is None
    lengths = jnp.array([8, 3, 5])
    prompt = jnp.where(jnp.arange(8) < lengths[:, None], jnp.arange(8), -1)
    empty = KVCache.empty(SPEC, 3, 16, jnp.float32)
    hidden, _, cache = forward(model, tokens[:, :8], prompt, cache=empty)
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(hidden[row, :n], whole[row, :n], atol=1e-5)
    np.testing.assert_array_equal(cache.lengths, lengths)
    for count in (1, 1, 1, 3):  # single tokens, then three at once
        places = cache.lengths[:, None] + jnp.arange(count)
        new = jnp.take_along_axis(tokens, places, 1)
        hidden, _, cache = forward(model, new, places, cache=cache)
        np.testing.assert_allclose(hidden, whole[jnp.arange(3)[:, None], places], atol=1e-5)
    np.testing.assert_array_equal(cache.lengths, lengths + 6)


def test_a_row_with_only_negative_positions_leaves_its_cache_alone():
    model, tokens = make(), jnp.asarray(TOKENS)
    cache = forward(model, tokens, cache=KVCache.empty(SPEC, 3, 20, jnp.float32))[2]
    positions = jnp.array([[14], [-1], [14]])
    after = forward(model, tokens[:, :1], positions, cache=cache)[2]
    np.testing.assert_array_equal(after.lengths, [15, 14, 15])
    np.testing.assert_array_equal(after.kv.k[:, 1], cache.kv.k[:, 1])
    assert np.abs(after.kv.k[:, 0, :, 14]).min() > 0


def test_a_flat_stream_with_a_shared_prompt_equals_padded_rows():
    model = make()
    prompt, a, b = [7, 8, 9], [10, 11], [12, 13, 14, 15]
    stream = jnp.array([prompt + a + b + [0]])
    positions = jnp.array([[0, 1, 2, 3, 4, 3, 4, 5, 6, 0]])
    rows = jnp.array([[[0, 1, 2, 3, 4, 9, 9], [0, 1, 2, 5, 6, 7, 8]]])
    first, second, none = [0, 1, 2, 3, 4], [7, 8, 9, None, None, 10, 11, 12, 13], 14
    inverse = Inverse(
        jnp.array([[*first, *second[5:], none]]), jnp.array(second[:3])[None, :, None]
    )
    flat, _ = model(stream, positions, rows=rows, inverse=inverse)
    padded = jnp.array([prompt + a + [0, 0], prompt + b])
    rowwise, _ = model(padded, positions_of(padded))
    np.testing.assert_allclose(flat[0, :5], rowwise[0, :5], atol=1e-5)
    np.testing.assert_allclose(flat[0, 5:9], rowwise[1, 3:], atol=1e-5)


def test_padding_to_the_right_does_not_matter():
    model = make()
    np.testing.assert_allclose(
        forward(model, TOKENS)[0][:, :9], forward(model, TOKENS[:, :9])[0], atol=1e-5
    )


def test_low_precision_stays_close_and_keeps_its_types():
    model = make(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model))} == {jnp.dtype(jnp.bfloat16)}
    hidden, logits, _ = forward(model, TOKENS)
    assert (hidden.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
    wide = make()
    nnx.update(wide, jax.tree.map(lambda x: x.astype(jnp.float32), nnx.state(model)))
    assert np.abs(hidden.astype(jnp.float32) - forward(wide, TOKENS)[0]).mean() < 0.05


def test_logits_are_scaled_then_capped():
    spec = dataclasses.replace(SPEC, logit_scale=3.0, logit_softcap=0.5)
    plain, capped = make(), make(spec)
    hidden = jax.random.normal(jax.random.key(0), (2, 16))
    expected = 0.5 * np.tanh(3.0 * plain.logits(hidden) / 0.5)
    np.testing.assert_allclose(capped.logits(hidden), expected, atol=1e-6)
    weight, vocab_axis = plain.head()
    assert (weight.shape, vocab_axis) == ((16, 50), 1)
    assert make(dataclasses.replace(SPEC, tied=True)).head()[1] == 0


def test_a_linear_layer_adds_what_its_adapter_returns_and_every_layer_gets_its_own_key():
    class Adapter(nnx.Module):
        def __init__(self, layers, width):
            self.shift = nnx.LoRAParam(jnp.ones((layers, width)))

        def __call__(self, x, key):
            noise = 0.0 if key is None else jax.random.normal(key, (self.shift.shape[-1],))
            return x @ jnp.zeros((x.shape[-1], self.shift.shape[-1])) + self.shift[...] + noise

    def run(key):
        return np.asarray(forward(model, TOKENS, key=key)[0])

    model = make()
    plain = run(None)
    np.testing.assert_array_equal(plain, run(jax.random.key(0)))
    model.layers.mlp.down.lora = Adapter(5, 16)
    adapted = run(None)
    assert np.abs(adapted - plain).max() > 0.1
    assert np.abs(run(jax.random.key(0)) - adapted).max() > 0.1
    np.testing.assert_array_equal(run(jax.random.key(0)), run(jax.random.key(0)))


def test_a_scalar_model_has_a_float32_score_per_token_and_may_lack_an_unembedding():
    model = make(dtype=jnp.bfloat16, value_head=True, lm_head=False)
    scores = model.value(jnp.ones((3, 14, 16), jnp.bfloat16))
    assert (scores.shape, scores.dtype) == ((3, 14), jnp.float32)
    with pytest.raises(ValueError, match="no unembedding"):
        model.head()


def test_misuse_is_refused_with_a_reason():
    model, tokens = make(), jnp.asarray(TOKENS)
    with pytest.raises(ValueError, match="did you mean 'full'"):
        make(remat="ful")
    with pytest.raises(ValueError, match="both or neither"):
        model(tokens, positions_of(tokens), rows=tokens[:, None])
    with pytest.raises(ValueError, match="do not fit a cache of 4 places"):
        model(tokens, positions_of(tokens), cache=KVCache.empty(SPEC, 3, 4, jnp.float32))
    with pytest.raises(ValueError, match="did you mean 'rms'"):
        dataclasses.replace(SPEC, norm="rmsnorm")
    with pytest.raises(ValueError, match="windowed names 2 layers"):
        dataclasses.replace(SPEC, windowed=(True, False))
