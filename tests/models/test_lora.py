import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.models.adapters.lora import Lora, adapters, add_lora, merge, trainable_filter
from jalign.models.decoder import Decoder
from jalign.models.heads import ScalarHead
from jalign.models.spec import Spec

SPEC = Spec(vocab_size=19, width=16, depth=3, heads=2, kv_heads=1, head_dim=8, mlp_width=24)
TOKENS = jnp.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
POSITIONS = jnp.broadcast_to(jnp.arange(5), (2, 5))


@functools.cache  # nothing here changes the model it is given
def tiny(**types) -> Decoder:
    return Decoder(SPEC, rngs=nnx.Rngs(0), **types)


def with_lora(model=None, rank=2, alpha=6.0, fill_b=True, **options) -> Decoder:
    model = add_lora(model or tiny(), rank=rank, alpha=alpha, rngs=nnx.Rngs(1), **options)
    if fill_b:
        for i, lora in enumerate(adapters(model).values()):
            b = jax.random.normal(jax.random.key(i), lora.b.shape) * 0.3
            lora.b[...] = b
    return model


@functools.partial(jax.jit, static_argnums=0)
def _logits(graphdef, state, key):
    model = nnx.merge(graphdef, state)
    return model.logits(model(TOKENS, POSITIONS, key=key)[0])


def logits(model, key=None):
    return _logits(*nnx.split(model), key)


def test_the_update_is_scale_times_x_a_b():
    a, b = jnp.array([[1.0, 2.0], [0.0, 1.0]]), jnp.array([[1.0], [10.0]])
    lora = Lora(a, b, alpha=6.0, dropout=0.0, rank_stabilized=False)
    # (1, 3) A = (1, 5); times B = 51; times 6 / 2
    np.testing.assert_allclose(lora(jnp.array([[1.0, 3.0]])), [[153.0]])


def test_rank_stabilised_scale_divides_by_the_root_of_the_rank():
    a, b = jnp.ones((1, 4)), jnp.ones((4, 1))
    plain, stabilised = (
        Lora(a, b, alpha=6.0, dropout=0.0, rank_stabilized=flag) for flag in (False, True)
    )
    assert (plain.scale, stabilised.scale) == (1.5, 3.0)


def test_fresh_adapters_change_nothing():
    model = tiny()
    np.testing.assert_array_equal(logits(with_lora(model, fill_b=False)), logits(model))


def test_a_starts_uniform_within_one_over_root_fan_in():
    a = adapters(with_lora(rank=8))["layers.mlp.down"].a[...]  # fan-in 24
    assert a.shape == (3, 24, 8) and a.dtype == jnp.float32
    assert 0.9 / 24**0.5 < jnp.abs(a).max() < 1 / 24**0.5
    np.testing.assert_allclose(a.std(), 1 / 72**0.5, rtol=0.1)


def test_every_layer_gets_its_own_start():
    a = adapters(with_lora())["layers.attn.q"].a[...]
    assert not jnp.allclose(a[0], a[1])


def test_adapters_stand_beside_every_linear_layer_by_default_and_the_given_model_has_none():
    model = tiny()
    assert {path.split(".")[-1] for path in adapters(with_lora(model))} == {
        *("q", "k", "v", "o"),
        *("gate", "up", "down"),
    }
    assert adapters(model) == {}


@pytest.mark.parametrize(
    "targets, names",
    [("q|v", ["q", "v"]), ("attn.o", ["o"]), ("layers[.]mlp[.].*", ["gate", "up", "down"])],
)
def test_targets_match_whole_trailing_parts_of_a_path(targets, names):
    assert sorted(p.split(".")[-1] for p in adapters(with_lora(targets=targets))) == sorted(names)


def test_merging_gives_the_same_logits_without_adapters():
    model = with_lora(rank_stabilized=True)
    merged = merge(model)
    assert adapters(merged) == {} and len(adapters(model)) == 7
    np.testing.assert_allclose(logits(merged), logits(model), atol=2e-6)
    assert jnp.abs(logits(merged) - logits(tiny())).max() > 1e-3
    assert nnx.graphdef(merged) == nnx.graphdef(tiny())


def test_adapters_stay_float32_under_bfloat16_and_merge_keeps_the_kernel_dtype():
    model = with_lora(tiny(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16))
    assert {x.dtype for x in jax.tree.leaves(nnx.state(model, nnx.LoRAParam))} == {
        jnp.dtype("float32")
    }
    lora = adapters(model)["layers.attn.q"]
    assert nnx.eval_shape(lambda: model(TOKENS, POSITIONS)[0]).dtype == jnp.bfloat16
    assert lora.delta().dtype == jnp.float32
    assert merge(model).layers.attn.q.kernel.dtype == jnp.bfloat16


def test_dropout_needs_a_key_and_keeps_the_mean():
    lora = Lora(jnp.eye(400), jnp.eye(400), alpha=400.0, dropout=0.25, rank_stabilized=False)
    x = jnp.ones((50, 400))
    np.testing.assert_array_equal(lora(x), x)
    y = lora(x, jax.random.key(0))
    np.testing.assert_allclose(jnp.unique(y), [0.0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(y.mean(), 1.0, atol=0.02)


def test_dropout_reaches_the_adapters_of_a_decoder():
    model = with_lora(dropout=0.5)
    quiet = logits(model)
    one, same, other = (logits(model, jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert jnp.abs(one - other).max() > 1e-3 and jnp.abs(one - quiet).max() > 1e-3


def test_only_adapters_train_and_b_moves_first():
    model = with_lora(fill_b=False)
    graphdef, params, rest = nnx.split(model, trainable_filter(model), ...)

    def loss(params):
        return jnp.sum(_logits(graphdef, nnx.merge_state(params, rest), None) ** 2)

    grads = nnx.to_flat_state(jax.grad(loss)(params))
    assert {path[-1] for path, _ in grads} == {"a", "b"} and len(list(grads)) == 14
    for path, g in grads:
        moved = jnp.abs(g[...]).max() > 0
        assert moved == (path[-1] == "b"), path


def test_a_scalar_head_trains_beside_the_adapters():
    model = with_lora()
    model.value = ScalarHead(16, rngs=nnx.Rngs(2))
    _, params, rest = nnx.split(model, trainable_filter(model), ...)
    heads = {path[0] for path, _ in nnx.to_flat_state(params)}
    assert heads == {"layers", "value"}
    assert all(path[-1] not in ("a", "b") for path, _ in nnx.to_flat_state(rest))


def test_without_adapters_everything_trains():
    model = tiny()
    _, params, rest = nnx.split(model, trainable_filter(model), ...)
    assert not nnx.to_flat_state(rest) and len(nnx.to_flat_state(params)) > 7


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rank": 0}, "at least 1, got 0"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
        ({"targets": "attn.query"}, "attn.query.*matches no linear layer.*attn.q"),
        ({"targets": "q("}, "not a regular expression"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        with_lora(**options)


def test_adapters_are_neither_added_twice_nor_merged_when_there_are_none():
    with pytest.raises(ValueError, match="already"):
        with_lora(with_lora())
    with pytest.raises(ValueError, match="no LoRA adapters"):
        merge(tiny())
