"""The description of an architecture, by which a resumed run knows its model."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.models.rope import QueryGrowth, Rope
from jalign.models.rotate import rotate, rotate_by_product, rotate_in_one_pass
from jalign.models.spec import LayerType, Spec

SPEC = Spec(vocab_size=10, width=4, depth=3, heads=2, kv_heads=1, head_dim=2, mlp_width=8)
# As runs have stored it since before the fields that are not in it.
STORED = (
    "Spec(vocab_size=10, width=4, depth=3, heads=2, kv_heads=1, head_dim=2, mlp_width=8, "
    "activation='silu', gated=True, norm='rms', norm_eps=1e-06, post_norms=False, qk_norm=False, "
    "qkv_bias=False, o_bias=False, mlp_bias=False, embed_scale=None, learned_positions=None, "
    "rope=Rope(base=10000.0, fraction=1.0, linear=1.0, llama3=None), local_rope=None, window=None, "
    "windowed=(), attn_scale=None, attn_softcap=None, logit_softcap=None, logit_scale=1.0, "
    "tied=True)"
)


def test_a_run_from_before_a_switch_compares_equal_unless_the_switch_is_set():
    assert repr(SPEC) == STORED
    other = dataclasses.replace(SPEC, parallel=True, rope=Rope(interleaved=True))
    assert repr(other) == STORED.replace("llama3=None)", "llama3=None, interleaved=True)").replace(
        "tied=True)", "tied=True, parallel=True)"
    )


def test_layers_without_a_rotary_embedding_keep_their_window():
    spec = dataclasses.replace(
        SPEC, window=5, windowed=(True, True, False), no_rope=(False, True, True)
    )
    plain = Rope()
    assert spec.kinds == (LayerType(5, plain), LayerType(5, None), LayerType(None, None))
    assert spec.period == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"no_rope": (True,)}, "no_rope names 1 layers, depth is 3"),
        ({"qk_norm_over": "heads"}, "did you mean 'head'"),
        ({"parallel": True, "post_norms": True}, "share one norm"),
        ({"parallel": True, "pre_norms": False}, "share one norm"),
    ],
)
def test_switches_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **change)


def test_queries_grow_in_steps_of_the_trained_context():
    growth = QueryGrowth(beta=0.5, tokens=4)(jnp.array([-1, 0, 3, 4, 7, 8, 12]))
    logs = [0, 0, 0, np.log(2), np.log(2), np.log(3), np.log(4)]
    np.testing.assert_allclose(growth, 1 + 0.5 * np.array(logs), rtol=1e-6)


@pytest.mark.parametrize("rotate", [rotate, rotate_in_one_pass, rotate_by_product])
def test_interleaved_features_turn_with_their_neighbors(rotate):
    x = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])[None, None, None]  # the fifth does not turn
    angles = np.array([[[0.3, 0.7]]])
    table = (jnp.cos(angles), jnp.sin(angles))
    turned = rotate(x, table, interleaved=True)[0, 0, 0]
    (a, b), (c, d) = (
        (p * np.cos(t) - q * np.sin(t), q * np.cos(t) + p * np.sin(t))
        for p, q, t in ((1, 2, 0.3), (3, 4, 0.7))
    )
    np.testing.assert_allclose(turned, [a, c, b, d, 5.0], rtol=1e-6)  # the even ones first


@pytest.mark.parametrize("rotate", [rotate, rotate_in_one_pass, rotate_by_product])
def test_the_first_half_of_the_rotated_features_turns_against_the_second(rotate):
    x = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])[None, None, None]  # the fifth does not turn
    angles = np.array([[[0.3, 0.7]]])
    turned = rotate(x, (jnp.cos(angles), jnp.sin(angles)))[0, 0, 0]
    (a, b), (c, d) = (
        (p * np.cos(t) - q * np.sin(t), q * np.cos(t) + p * np.sin(t))
        for p, q, t in ((1, 3, 0.3), (2, 4, 0.7))
    )
    np.testing.assert_allclose(turned, [a, c, b, d, 5.0], rtol=1e-6)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("other", "head_dim"),
    [(rotate_in_one_pass, 8), (rotate_by_product, 8), (rotate_by_product, 64)],
)
def test_rotations_of_heads_stored_otherwise_have_the_same_values_and_gradients(
    other, head_dim, fraction, interleaved
):
    rope = Rope(fraction=fraction, interleaved=interleaved)
    table = rope.table(jnp.arange(6).reshape(2, 3), head_dim)
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, head_dim), jnp.bfloat16)

    def of(turn):
        return jax.vjp(lambda x: turn(x, table, interleaved=interleaved), x)

    (y, pull), (same, pull_same) = of(rotate), of(other)
    np.testing.assert_array_equal(y, same)
    np.testing.assert_array_equal(pull(y)[0], pull_same(y)[0])
