"""All implementations of attention that run here give the values and gradients of the plain one."""

import functools
import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jalign.kernels import splash_layout
from jalign.kernels.attention import attention, cached_attention

RNG = np.random.default_rng(0)


def draw(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.normal(size=shape), dtype)


def value_and_gradients(implementation, q, k, v, weights, **numbers):
    def f(q, k, v):
        y = attention(q, k, v, scale=0.3, implementation=implementation, **numbers)
        return (y * weights).sum(), y

    (_, y), g = jax.jit(jax.value_and_grad(f, (0, 1, 2), has_aux=True))(q, k, v)
    return y, *g


def test_plain_attention_gives_the_values_computed_by_hand():
    q = jnp.array([1.0, 2.0]).reshape(1, 2, 1, 1)
    k = jnp.array([3.0, 1.0]).reshape(1, 2, 1, 1)
    v = jnp.array([5.0, 7.0]).reshape(1, 2, 1, 1)
    y = attention(q, k, v, scale=0.5, implementation="xla").reshape(-1)
    a, b = np.exp(0.5 * 2 * 3), np.exp(0.5 * 2 * 1)
    np.testing.assert_allclose(y, [5.0, (a * 5 + b * 7) / (a + b)], rtol=1e-6)
    capped = attention(q, k, v, scale=0.5, softcap=2.0, implementation="xla").reshape(-1)
    a, b = np.exp(2 * np.tanh(3 / 2)), np.exp(2 * np.tanh(1 / 2))
    np.testing.assert_allclose(capped[1], (a * 5 + b * 7) / (a + b), rtol=1e-6)
    alone = attention(q, k, v, scale=0.5, window=1, implementation="xla").reshape(-1)
    np.testing.assert_allclose(alone, [5.0, 7.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "heads", "groups", "window", "softcap"),
    [
        (100, 4, 4, None, None),
        (130, 6, 2, None, None),
        (200, 4, 2, 50, None),
        (70, 2, 1, 7, 5.0),
        (64, 3, 3, 200, 3.0),
    ],
)
def test_blocked_attention_has_the_values_and_gradients_of_plain_attention(
    tokens, heads, groups, window, softcap
):
    q, weights = draw(2, tokens, heads, 8), draw(2, tokens, heads, 8)
    k, v = draw(2, tokens, groups, 8), draw(2, tokens, groups, 8)
    numbers = {"window": window, "softcap": softcap}
    plain = value_and_gradients("xla", q, k, v, weights, **numbers)
    blocked = value_and_gradients("blocked", q, k, v, weights, **numbers)
    for a, b in zip(blocked, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_blocked_attention_in_bfloat16_is_close_to_float32():
    args = [draw(1, 90, 4, 16), draw(1, 90, 2, 16), draw(1, 90, 2, 16), draw(1, 90, 4, 16)]
    exact = value_and_gradients("xla", *args)
    coarse = value_and_gradients("blocked", *(a.astype(jnp.bfloat16) for a in args))
    for a, b in zip(coarse, exact, strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.08)


@pytest.mark.parametrize("implementation", ["xla", "blocked"])
def test_right_padding_does_not_reach_real_tokens(implementation):
    q, k, v = draw(1, 80, 2, 8), draw(1, 80, 2, 8), draw(1, 80, 2, 8)
    y = attention(q, k, v, scale=0.3, implementation=implementation)
    k, v = k.at[:, 70:].set(1e4), v.at[:, 70:].set(-1e4)
    padded = attention(q, k, v, scale=0.3, implementation=implementation)
    np.testing.assert_array_equal(padded[:, :70], y[:, :70])


@pytest.mark.parametrize("groups", [2, 1])
def test_blocked_attention_under_a_mesh_stays_on_each_device_and_gives_the_same(groups):
    mesh = Mesh(
        np.array(jax.devices()).reshape(2, 2, 2),
        ("data", "fsdp", "tensor"),
        axis_types=(AxisType.Auto,) * 3,
    )
    q, weights = draw(8, 70, 4, 8), draw(8, 70, 4, 8)
    k, v = draw(8, 70, groups, 8), draw(8, 70, groups, 8)
    alone = value_and_gradients("blocked", q, k, v, weights)
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    with jax.set_mesh(mesh):
        args = [jax.device_put(a, rows) for a in (q, k, v, weights)]
        together = value_and_gradients("blocked", *args)
        run = jax.jit(lambda q, k, v: attention(q, k, v, scale=0.3, implementation="blocked"))
        hlo = run.lower(*args[:3]).compile().as_text()
    assert together[0].sharding.spec[0] == ("data", "fsdp")
    assert "f32[8,70,4" not in hlo  # no device holds all rows
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("window", "softcap"), [(None, None), (5, 2.0)])
def test_cached_attention_gives_each_token_what_it_gets_in_its_row(window, softcap):
    q, k, v = draw(2, 12, 4, 8), draw(2, 12, 2, 8), draw(2, 12, 2, 8)
    numbers = {"scale": 0.3, "window": window, "softcap": softcap}
    whole = attention(q, k, v, implementation="xla", **numbers)
    positions = jnp.array([[3, 4], [10, 11]])
    new = jnp.take_along_axis(q, positions[..., None, None], 1)
    y = cached_attention(new, k.swapaxes(1, 2), v.swapaxes(1, 2), positions, **numbers)
    expected = jnp.take_along_axis(whole, positions[..., None, None], 1)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_grouped_heads_read_their_own_keys_and_are_never_repeated():
    q, k, v = draw(1, 6, 4, 8), draw(1, 6, 2, 8), draw(1, 6, 2, 8)
    repeated = [jnp.repeat(x, 2, axis=2) for x in (k, v)]
    a = attention(q, k, v, scale=0.3, implementation="blocked")
    b = attention(q, *repeated, scale=0.3, implementation="xla")
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    text = (
        jax.jit(lambda *x: cached_attention(*x, jnp.array([[5]]), scale=1.0))
        .lower(q[:, :1], k.swapaxes(1, 2), v.swapaxes(1, 2))
        .as_text()
    )
    assert "1x4x6x8" not in text


def test_wrong_arguments_are_errors_that_say_what_is_allowed():
    q, k = draw(1, 4, 4, 8), draw(1, 4, 3, 8)
    with pytest.raises(ValueError, match="there is: xla, blocked, cudnn, splash"):
        attention(q, q, q, scale=1.0, implementation="flash")
    with pytest.raises(ValueError, match="4 query heads do not divide into 3"):
        attention(q, k, k, scale=1.0, implementation="xla")
    with pytest.raises(ValueError, match="at least the token itself"):
        attention(q, q, q, scale=1.0, window=0, implementation="xla")
    with pytest.raises(ValueError, match="no soft cap"):
        attention(q, q, q, scale=1.0, softcap=30.0, implementation="cudnn")


@pytest.mark.parametrize(
    ("heads", "groups", "head_dim", "by_lanes"),
    [
        (8, 4, 64, True),  # both heads of a pair read the same keys
        (4, 4, 64, True),  # each its own
        (6, 2, 64, False),  # the middle pair reads those of two groups
        (4, 1, 64, False),
        (4, 2, 128, True),
        (4, 2, 32, False),
    ],
)
@pytest.mark.parametrize("with_sinks", [False, True])
def test_splash_attention_has_the_values_and_gradients_of_plain_attention_however_heads_are_stored(
    monkeypatch, heads, groups, head_dim, by_lanes, with_sinks
):
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel

    interpreted = functools.partial(kernel.make_splash_mha, interpret=True)
    monkeypatch.setattr(kernel, "make_splash_mha", interpreted)
    q, weights = draw(2, 130, heads, head_dim), draw(2, 130, heads, head_dim)
    k, v = draw(2, 130, groups, head_dim), draw(2, 130, groups, head_dim)
    assert splash_layout.by_lanes(q, k) is by_lanes
    sinks = jnp.linspace(-1.0, 2.0, heads) if with_sinks else None

    def run(implementation):
        def f(q, k, v, sinks):
            q, k, v = splash_layout.as_read(q, k, v) if implementation == "splash" else (q, k, v)
            y = attention(q, k, v, scale=0.1, sinks=sinks, implementation=implementation)
            return (y * weights).sum(), y

        return jax.jit(jax.value_and_grad(f, (0, 1, 2), has_aux=True))(q, k, v, sinks)

    (_, y), gradients = run("splash")
    (_, plain), of_plain = run("xla")
    np.testing.assert_allclose(y, plain, atol=2e-5)
    for a, b in zip(gradients, of_plain, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.parametrize(("window", "softcap", "head_dim"), [(None, None, 64), (300, 30.0, 128)])
def test_splash_attention_and_its_gradient_compile_for_a_tpu(
    monkeypatch, window, softcap, head_dim
):
    for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices
    axes = ("data", "fsdp", "tensor")
    mesh = Mesh(np.array(devices).reshape(1, 2, 2), axes, axis_types=(AxisType.Auto,) * 3)
    rows = NamedSharding(mesh, P(("data", "fsdp")))
    q, k = (
        jax.ShapeDtypeStruct((4, 600, heads, head_dim), jnp.bfloat16, sharding=rows)
        for heads in (8, 4)
    )

    def f(q, k, v):
        numbers = {"scale": 0.1, "window": window, "softcap": softcap}
        y = attention(q, k, v, implementation="splash", **numbers)
        return y.astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        text = jax.jit(jax.grad(f, (0, 1, 2))).lower(q, k, k).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') >= 2


@pytest.mark.parametrize("groups", [2, 4])
def test_bfloat16_attention_to_a_cache_runs_everywhere_and_sums_in_float32(groups):
    q, k, v = draw(3, 1, 4, 8), draw(3, groups, 16, 8), draw(3, groups, 16, 8)
    positions = jnp.array([[15], [3], [0]])
    exact = cached_attention(q, k, v, positions, scale=0.3)
    q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
    run = jax.jit(lambda q, k, v: cached_attention(q, k, v, positions, scale=0.3))
    found = run(q, k, v)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), exact, atol=0.03)
