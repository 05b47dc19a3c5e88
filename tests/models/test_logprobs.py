"""The blocked head against plain softmax: values, gradients, memory, sharding."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jalign.models import logprobs
from jalign.models.logprobs import STATISTICS, statistics, token_logps

RNG = np.random.default_rng(0)


def draw(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.normal(size=shape), dtype)


def log_softmax(h, w, vocab_axis, softcap=None, scale=1.0, temperature=1.0):
    z = scale * (h @ (w.T if vocab_axis == 0 else w))
    z = z if softcap is None else softcap * jnp.tanh(z / softcap)
    return jax.nn.log_softmax(z / temperature, -1)


def plain(h, w, y, vocab_axis, **numbers):
    logp = log_softmax(h, w, vocab_axis, **numbers)
    p = jnp.exp(logp)
    return {
        "token_logps": jnp.take_along_axis(logp, y[..., None], -1)[..., 0],
        "entropy": -(p * logp).sum(-1),
        "log_sum_p_squared": jnp.log(jnp.square(p).sum(-1)),
    }


def same(a, b, tolerance=1e-5):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), a, b
    )


def test_token_logps_entropy_and_collision_are_those_computed_by_hand():
    w = jnp.log(jnp.array([[0.5, 0.3, 0.2]])) + 4.0  # an offset changes nothing
    out = statistics(
        jnp.ones((1, 1)), w, jnp.array([1]), names=STATISTICS, vocab_axis=1, block=(1, 2)
    )
    same(out["token_logps"], [math.log(0.3)])
    same(out["entropy"], [-sum(p * math.log(p) for p in (0.5, 0.3, 0.2))])
    same(out["log_sum_p_squared"], [math.log(0.25 + 0.09 + 0.04)])


@pytest.mark.parametrize(
    "arguments", [(0, 1), (0,), (1,)], ids=["both", "frozen head", "only head"]
)
@pytest.mark.parametrize(
    ("vocab_axis", "vocabulary", "block", "numbers"),
    [
        (0, 57, (5, 16), {}),
        (1, 57, (5, 16), {"softcap": 3.0, "scale": 0.7, "temperature": 1.3}),
        (0, 32, None, {"softcap": 3.0}),
        (1, 33, (13, 11), {"scale": 0.5}),
    ],
)
def test_values_and_gradients_are_those_of_a_plain_softmax(
    vocab_axis, vocabulary, block, numbers, arguments
):
    h, y = draw(2, 13, 6), jnp.asarray(RNG.integers(0, vocabulary, (2, 13)))
    w = draw(*((vocabulary, 6) if vocab_axis == 0 else (6, vocabulary)))
    g = {name: draw(2, 13) for name in STATISTICS}

    def of(f):
        def total(h, w):
            out = f(h, w)
            return sum((g[n] * out[n]).sum() for n in STATISTICS), out

        return jax.jit(jax.grad(total, arguments, has_aux=True))(h, w)

    def ours(h, w):
        cut = {"names": STATISTICS, "vocab_axis": vocab_axis, "block": block}
        return statistics(h, w, y, **cut, **numbers)

    same(of(ours), of(lambda h, w: plain(h, w, y, vocab_axis, **numbers)))


@pytest.mark.parametrize("name", STATISTICS)
def test_each_statistic_alone_has_its_own_gradient(name):
    h, w, y = draw(9, 6), draw(6, 21), jnp.asarray(RNG.integers(0, 21, 9))
    g = draw(9)

    def ours(h, w):
        if name == "token_logps":
            return (g * token_logps(h, w, y, vocab_axis=1, block=(4, 8))).sum()
        return (g * getattr(logprobs, name)(h, w, vocab_axis=1, block=(4, 8))).sum()

    a = jax.grad(ours, (0, 1))(h, w)
    same(a, jax.grad(lambda h, w: (g * plain(h, w, y, 1)[name]).sum(), (0, 1))(h, w))


def test_a_head_that_is_not_trained_is_not_swept_again_in_the_backward_pass():
    h, w, y = draw(8, 4), draw(64, 4), jnp.zeros(8, jnp.int32)

    def products(arguments):
        def f(h, w):
            return token_logps(h, w, y, vocab_axis=0, block=(8, 64)).sum()

        return str(jax.make_jaxpr(jax.grad(f, arguments))(h, w)).count("dot_general")

    assert products((0,)) == 2 and products((0, 1)) == 4


def test_gradients_pass_through_remat_and_scan_over_micro_batches():
    h, w, y = draw(3, 8, 4), draw(64, 4), jnp.asarray(RNG.integers(0, 64, (3, 8)))

    def f(h, w, y):
        return jax.checkpoint(lambda h: token_logps(h, w, y, vocab_axis=0).sum())(jnp.sin(h))

    def step(total, hy):
        return total + jax.grad(f, 1)(hy[0], w, hy[1]), jax.grad(f)(hy[0], w, hy[1])

    dw, dh = jax.lax.scan(step, jnp.zeros_like(w), (h, y))

    def expected(h, w):
        return plain(jnp.sin(h), w, y, 0)["token_logps"].sum()

    same((dh, dw), jax.grad(expected, (0, 1))(h, w))


def test_bfloat16_states_give_float32_values_close_to_exact_ones():
    h, w, y = draw(16, 32), draw(32, 50), jnp.asarray(RNG.integers(0, 50, 16))
    coarse = [x.astype(jnp.bfloat16) for x in (h, w)]
    exact = [x.astype(jnp.float32) for x in coarse]
    value, grads = jax.value_and_grad(
        lambda h, w: token_logps(h, w, y, vocab_axis=1, block=(7, 16)).sum(), (0, 1)
    )(*coarse)
    assert value.dtype == jnp.float32 and grads[0].dtype == grads[1].dtype == jnp.bfloat16
    want, wanted = jax.value_and_grad(lambda h, w: plain(h, w, y, 1)["token_logps"].sum(), (0, 1))(
        *exact
    )
    same(value, want, 1e-4)
    same(tuple(g.astype(jnp.float32) for g in grads), wanted, 0.05)


def test_a_certain_token_has_log_probability_zero_and_never_more():
    w = jnp.array([[300.0, -300.0, 7.7]])
    out = statistics(jnp.ones((3, 1)), w, jnp.zeros(3, jnp.int32), names=STATISTICS, vocab_axis=1)
    for name in STATISTICS:
        np.testing.assert_array_equal(out[name], 0.0)


@pytest.mark.parametrize("arguments", [(0, 1), (0,)])
def test_memory_of_the_gradient_is_a_twentieth_of_the_naive_one(arguments):
    q, v, d = 512, 131072, 64
    shapes = [((q, d), jnp.float32), ((v, d), jnp.float32), ((q,), jnp.int32)]

    def bytes_of(f):
        grad = jax.grad(lambda h, w, y: f(h, w, y).sum(), arguments)
        lowered = jax.jit(grad).lower(*(jax.ShapeDtypeStruct(*s) for s in shapes))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    naive = bytes_of(lambda h, w, y: plain(h, w, y, 0)["token_logps"])
    assert bytes_of(functools.partial(token_logps, vocab_axis=0)) <= naive / 20


@pytest.mark.parametrize("vocab_axis", [0, 1])
def test_a_sharded_head_gives_the_same_and_is_cut_on_its_own_device(vocab_axis):
    axes = ("data", "fsdp", "tensor")
    mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), axes, axis_types=(AxisType.Auto,) * 3)
    h, y = draw(4, 10, 8), jnp.asarray(RNG.integers(0, 96, (4, 10)))
    w = draw(*((96, 8) if vocab_axis == 0 else (8, 96)))
    spec = P("tensor", "fsdp") if vocab_axis == 0 else P("fsdp", "tensor")

    def f(h, w, y):
        out = statistics(h, w, y, names=STATISTICS, vocab_axis=vocab_axis, block=(4, 20))
        return sum(i * x.sum() for i, x in enumerate(out.values(), 1)), out

    run = jax.jit(jax.grad(f, (0, 1), has_aux=True))
    alone = run(h, w, y)
    with jax.set_mesh(mesh):
        rows = NamedSharding(mesh, P(("data", "fsdp")))
        placed = [
            jax.device_put(x, s) for x, s in ((h, rows), (w, NamedSharding(mesh, spec)), (y, rows))
        ]
        same(run(*placed), alone)
        text = run.lower(*placed).compile().as_text()
    # No device ever holds the whole vocabulary, nor a block of it that is not its own.
    assert "f32[96,8]" not in text and "f32[8,96]" not in text


def test_shapes_that_do_not_fit_are_errors():
    h, w = jnp.ones((3, 4)), jnp.ones((5, 4))
    with pytest.raises(ValueError, match="whose vocabulary is axis 1"):
        token_logps(h, w, jnp.zeros(3, jnp.int32), vocab_axis=1)
    with pytest.raises(ValueError, match="there is: token_logps, entropy"):
        statistics(h, w, None, names=("entropie",), vocab_axis=0)
    with pytest.raises(ValueError, match="needs targets"):
        statistics(h, w, None, names=("token_logps",), vocab_axis=0)
