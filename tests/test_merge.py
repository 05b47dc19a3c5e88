"""Merging against values by hand; deltas are pytrees, so most have two tensors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign.models import merge
from jalign.models.adapters.lora import adapters, add_lora
from jalign.models.adapters.lora import merge as merge_adapters
from jalign.models.decoder import Decoder
from jalign.models.spec import Spec
from jalign.parallel.paths import path_name


def tree(*tensors):
    return {f"w{i}": jnp.array(x, jnp.float32) for i, x in enumerate(tensors)}


def same(got, want, **tolerance):
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], **({"rtol": 1e-6} | tolerance))


def test_linear_is_the_weighted_sum():
    a, b = tree([1.0, -2.0], [[3.0]]), tree([10.0, 5.0], [[-7.0]])
    same(merge.linear([a, b], [0.5, -2.0]), tree([-19.5, -11.0], [[15.5]]))


# Ten entries at density 0.4: four of each stay. In C the sizes 3 are equal: the first two stay.
A = [0.1, -5.0, 4.0, 0.2, -0.3, 6.0, 0.0, -3.0, 0.4, 0.5]
B = [7.0, 2.0, -0.1, -0.2, 0.3, -8.0, 0.0, -4.0, 0.1, 0.6]
C = [-3.0, -0.5, 3.0, 0.1, 0.2, 5.0, 0.0, 3.0, -3.0, 9.0]
TRIMMED_A = [0, -5.0, 4.0, 0, 0, 6.0, 0, -3.0, 0, 0]
TRIMMED_B = [7.0, 2.0, 0, 0, 0, -8.0, 0, -4.0, 0, 0]
TRIMMED_C = [-3.0, 0, 3.0, 0, 0, 5.0, 0, 0, 0, 9.0]
# Sums: 4, -3, 7, 0, 0, 3, 0, -7, 0, 9; the mean is over the entries of the sum's sign.
MERGED = [7.0, -5.0, 3.5, 0, 0, 5.5, 0, -3.5, 0, 9.0]


def test_ties_by_hand():
    deltas = [tree(x) for x in (A, B, C)]
    same(merge.ties(deltas, density=0.4), tree(MERGED))
    same(merge.ties(deltas, density=0.4, scale=0.5), tree(np.array(MERGED) / 2))


@pytest.mark.parametrize("x, want", [(A, TRIMMED_A), (B, TRIMMED_B), (C, TRIMMED_C)])
def test_ties_of_one_model_is_its_trimmed_delta(x, want):
    same(merge.ties([tree(x)], density=0.4), tree(want))


@pytest.mark.parametrize(
    "density, n, kept", [(0.57, 100, 57), (0.2, 50, 10), (0.25, 7, 1), (0.0, 9, 0), (1.0, 9, 9)]
)
def test_ties_keeps_exactly_the_floor_of_density_times_n(density, n, kept):
    rng = np.random.default_rng(0)
    for x in (rng.normal(size=n), np.full(n, -2.0), rng.choice([-1.0, 1.0, 2.0], n)):
        got = merge.ties([tree(x)], density=density)["w0"]
        assert int(jnp.sum(got != 0)) == kept
        want = np.zeros(n)
        order = np.argsort(-np.abs(x), kind="stable")[:kept]
        want[order] = x[order]
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_trimming_counts_per_tensor_or_over_the_whole_model():
    delta = tree([1.0, -2.0, 3.0, 4.0], [[10.0, 20.0], [-30.0, 4.0]])
    by_tensor = tree([0, 0, 3.0, 4.0], [[0, 20.0], [-30.0, 0]])
    same(merge.ties([delta], density=0.5), by_tensor)
    whole = tree([0, 0, 0, 4.0], [[10.0, 20.0], [-30.0, 0]])  # of the two 4s the first
    same(merge.ties([delta], density=0.5, trim="global"), whole)


def test_a_sum_of_zero_takes_the_sign_that_most_entries_elected():
    """w0 elects -, -, +; w1 elects +, +, +: alone w0 is negative, the whole is positive."""
    a, b = tree([2.0, -1.0, -1.0, 5.0], [1.0, 1.0, 1.0]), tree([-2.0, -3.0, -1.0, 1.0], [1.0] * 3)
    same(merge.ties([a, b], density=1.0), tree([-2.0, -2.0, -1.0, 3.0], [1.0] * 3))
    same(merge.ties([a, b], density=1.0, trim="global"), tree([2.0, -2.0, -1.0, 3.0], [1.0] * 3))
    same(merge.ties([tree([2.0]), tree([-2.0])], density=1.0), tree([0.0]))  # no majority either


def test_ties_with_weights_elects_and_averages_by_them():
    a, b, c = tree([4.0, 1.0]), tree([-3.0, 2.0]), tree([-2.0, 6.0])
    same(merge.ties([a, b, c], density=1.0), tree([-2.5, 3.0]))
    # 3*4 - 3 - 2 > 0: only a agrees; (3*1 + 2 + 6) / 5
    same(merge.ties([a, b, c], density=1.0, weights=[3.0, 1.0, 1.0]), tree([4.0, 2.2]))


def test_dare_keeps_the_expectation_and_rescales():
    delta = tree(np.full((200, 200), 3.0), np.full(5000, -1.0))
    one, two = merge.dare([delta, delta], jax.random.key(0), drop=0.75)
    np.testing.assert_allclose(jnp.unique(one["w0"]), [0.0, 12.0])
    for got in (one, two):
        for name, x in delta.items():  # 4 standard errors of the mean of n values of spread 3^.5 x
            np.testing.assert_allclose(
                got[name].mean(), x.mean(), atol=4 * 3**0.5 * abs(x.mean()) / x.size**0.5
            )
    # Independent: both keep 1/16, not 1/4, in models as in tensors.
    both = jnp.mean((one["w0"] != 0) & (two["w0"] != 0))
    np.testing.assert_allclose(both, 1 / 16, atol=0.005)
    assert not jnp.array_equal(one["w0"].ravel()[:5000] != 0, one["w1"] != 0)
    (again,) = merge.dare([delta], jax.random.key(0), drop=0.75)
    np.testing.assert_array_equal(again["w0"], one["w0"])


def test_slerp_turns_by_t_times_the_angle():
    a, b = tree([3.0, 0.0]), tree([0.0, 1.0])
    thirty = tree([3 * math.cos(math.pi / 6), math.sin(math.pi / 6)])
    same(merge.slerp(a, b, 1 / 3), thirty, rtol=1e-5)
    c = tree([-2.0, 2.0])  # at 135 degrees: sin 90 / sin 135, sin 45 / sin 135
    want = [3 * 2**0.5 - 2.0, 2.0]
    same(merge.slerp(a, c, 1 / 3), tree(want), rtol=1e-5)


def test_slerp_ends_at_its_models_tensor_by_tensor():
    a = tree([1.0, 2.0], [[3.0, -1.0]], [0.0, 0.0])
    b = tree([-1.0, 5.0], [[6.0, -2.0]], [1.0, 2.0])
    same(merge.slerp(a, b, 0.0), a, atol=1e-6)
    same(merge.slerp(a, b, 1.0), b, atol=1e-6)


def test_slerp_is_linear_where_there_is_no_angle():
    a = tree([1.0, 2.0], [0.0, 0.0], [1.0, 2.0])
    b = tree([3.0, 6.0], [1.0, 2.0], [-2.0, -4.0])  # parallel, zero, opposite
    half = tree([2.0, 4.0], [0.5, 1.0], [-0.5, -1.0])
    same(merge.slerp(a, b, 0.5), half)


def test_sparsity_and_sign_conflict_count_entries_of_all_tensors():
    a, b = tree([1.0, -1e-5, 0.0], [[2.0]]), tree([-1.0, -3.0, 4.0], [[5.0]])
    assert merge.sparsity(a) == 0.5 and merge.sparsity(a, threshold=1.5) == 0.75
    assert merge.sign_conflict(a, b) == 0.25


def test_adapters_become_the_delta_that_merging_adds():
    spec = Spec(vocab_size=19, width=16, depth=3, heads=2, kv_heads=1, head_dim=8, mlp_width=24)
    model = add_lora(Decoder(spec, rngs=nnx.Rngs(0)), rank=2, alpha=6.0, rngs=nnx.Rngs(1))
    for i, one in enumerate(adapters(model).values()):
        one.b[...] = jax.random.normal(jax.random.key(i), one.b.shape)
    deltas = merge.full_rank(model)
    assert len(deltas) == 7
    leaves = jax.tree_util.tree_leaves_with_path(nnx.state(merge_adapters(model)))
    whole = {path_name(path): x for path, x in leaves}
    before = {
        path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Param))
    }
    for name, delta in deltas.items():
        np.testing.assert_allclose(delta, whole[name] - before[name], atol=1e-6)
    one = adapters(model)["layers.mlp.up"]
    np.testing.assert_allclose(
        deltas["layers.mlp.up.kernel"][1], 3 * one.a[1] @ one.b[1], rtol=1e-5, atol=1e-6
    )
    assert merge.full_rank(Decoder(spec, rngs=nnx.Rngs(0))) == {}


def test_merging_factors_apart_is_another_thing():
    """Why adapters become full-rank first: (A1 + A2)(B1 + B2) has cross terms."""
    a1, b1, a2, b2 = (jnp.array(x) for x in ([[1.0], [0]], [[2.0, 0]], [[0.0], [1]], [[0, 3.0]]))
    right = merge.linear([{"w": a1 @ b1}, {"w": a2 @ b2}], [1.0, 1.0])["w"]
    np.testing.assert_array_equal(right, [[2.0, 0], [0, 3.0]])
    assert not jnp.array_equal(right, (a1 + a2) @ (b1 + b2))


def test_by_layer_cuts_what_is_stacked_and_stacked_undoes_it():
    params = {
        "layers.q.kernel": jnp.arange(12.0).reshape(2, 3, 2),
        "embed.weight": jnp.ones((4, 2)),
    }
    cut = merge.by_layer(params)
    assert [x.shape for x in cut["layers.q.kernel"]] == [(3, 2)] * 2
    # 6 entries per layer: half of each layer stays, not the larger layer alone
    half = merge.stacked(merge.ties([cut], density=0.5))
    assert jnp.sum(half["layers.q.kernel"] != 0, (1, 2)).tolist() == [3, 3]
    same(merge.stacked(cut), params)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda d: merge.linear(d, [1.0]), "2 models need as many weights"),
        (lambda d: merge.linear(d, [1.0, math.nan]), "weights must be finite"),
        (lambda d: merge.linear([], []), "nothing to merge"),
        (lambda d: merge.linear([*d, tree([1.0])], [1.0] * 3), r"model 2 .*w0 is \(1,\) instead"),
        (lambda d: merge.ties(d, weights=[1.0, 0.0]), "weights > 0"),
        (lambda d: merge.ties(d, density=20.0), "0 to 1, got 20"),
        (lambda d: merge.ties(d, trim="model"), "'tensor' or 'global'"),
        (lambda d: merge.dare(d, jax.random.key(0), drop=1.0), "below 1, got 1.0"),
        (lambda d: merge.slerp(*d, 1.5), "got 1.5"),
        (lambda d: merge.sign_conflict(d[0], {"v": d[1]["w0"]}), "v is .* instead of missing"),
    ],
)
def test_what_cannot_be_merged_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call([tree([1.0, 2.0]), tree([3.0, 4.0])])
