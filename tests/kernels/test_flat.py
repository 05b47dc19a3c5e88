"""The gathers between stream and rows, and their gradients, against hand values and autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.kernels.flat import collapse, expand
from jalign.layout import Inverse

# A stream of 7 places: a prompt of two tokens (0, 1) shared by responses (2, 3) and (4,); 5 and 6
# hold nothing.
ROWS = jnp.array([[[0, 1, 2, 3], [0, 1, 4, 6]]])
INVERSE = Inverse(jnp.array([[0, 1, 2, 3, 6, 8, 8]]), jnp.array([[[4], [5]]]))


def many(copies):
    """Two random streams in which every prompt has `copies` responses."""
    rng = np.random.default_rng(copies)
    n, m, t = 40, 2 * copies, 9
    rows, inverse = np.full((2, m, t), n - 1), np.full((2, n, copies), m * t)
    for s in range(2):
        end = 0
        for prompt in range(2):
            p, start = rng.integers(1, 4), end
            end += p
            for c in range(copies):
                r, row = rng.integers(1, 4), prompt * copies + c
                rows[s, row, : p + r] = [*range(start, start + p), *range(end, end + r)]
                inverse[s, start : start + p, c] = row * t + np.arange(p)
                inverse[s, end : end + r, 0] = row * t + p + np.arange(r)
                end += r
    inverse = jnp.asarray(inverse)
    return jnp.asarray(rows), Inverse(inverse[..., 0], inverse[..., 1:])


def test_expand_puts_a_shared_prompt_into_every_row():
    x = 10.0 + jnp.arange(7.0)[None]
    np.testing.assert_array_equal(expand(x, ROWS, INVERSE)[0], [[10, 11, 12, 13], [10, 11, 14, 16]])


def test_the_gradient_of_expand_sums_copies_and_ignores_unused_places():
    g = jnp.array([[[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 1000.0]]])
    dx = jax.grad(lambda x: (expand(x, ROWS, INVERSE) * g).sum())(jnp.zeros((1, 7)))
    np.testing.assert_array_equal(dx[0], [11, 22, 3, 4, 30, 0, 0])


def test_collapse_takes_the_first_copy_and_zero_for_tokens_in_no_row():
    y = jnp.array([[[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 1000.0]]])
    np.testing.assert_array_equal(collapse(y, ROWS, INVERSE)[0], [1, 2, 3, 4, 30, 0, 0])


def test_the_gradient_of_collapse_goes_to_the_first_copy_only():
    g = jnp.arange(1.0, 8.0)[None]
    dy = jax.grad(lambda y: (collapse(y, ROWS, INVERSE) * g).sum())(jnp.zeros((1, 2, 4)))
    np.testing.assert_array_equal(dy[0], [[1, 2, 3, 4], [0, 0, 5, 0]])


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_both_gradients_are_those_of_plain_gathers(copies):
    rows, inverse = many(copies)
    real = (inverse.first < rows[0].size).astype(jnp.float32)[..., None]
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(*s, 3)), jnp.float32) for s in ((2, 40), rows.shape))
    copies = jnp.concatenate((inverse.first[..., None], inverse.more), -1)
    used = jnp.zeros((2, rows[0].size + 1)).at[jnp.arange(2)[:, None, None], copies].set(1.0)
    used = used[:, :-1].reshape(rows.shape)[..., None]

    def gather(x):
        return jax.vmap(lambda x, i: x[i])(x, rows)

    def pick(y):
        flat = y.reshape(2, -1, 3)
        last = jnp.minimum(inverse.first, flat.shape[1] - 1)
        return jax.vmap(lambda y, i: y[i])(flat, last) * real

    np.testing.assert_array_equal(expand(x, rows, inverse), gather(x))
    np.testing.assert_array_equal(collapse(y, rows, inverse), pick(y))
    a = jax.grad(lambda x: (expand(x, rows, inverse) * y * used).sum())(x)
    b = jax.grad(lambda x: (gather(x) * y * used).sum())(x)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    a = jax.grad(lambda y: (collapse(y, rows, inverse) * x).sum())(y)
    b = jax.grad(lambda y: (pick(y) * x).sum())(y)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    np.testing.assert_array_equal(collapse(expand(x, rows, inverse), rows, inverse), x * real)


def test_no_direction_scatters():
    def round_trip(x):
        return jnp.sin(collapse(jnp.sin(expand(x, ROWS, INVERSE)), ROWS, INVERSE)).sum()

    lowered = jax.jit(jax.grad(round_trip)).lower(jnp.ones((1, 7, 2, 3)))
    assert "stablehlo.gather" in lowered.as_text() and "stablehlo.scatter" not in lowered.as_text()
    assert " scatter(" not in lowered.compile().as_text()


def test_streams_that_are_sharded_stay_on_their_devices():
    rows, inverse = many(2)
    four = lambda a: jnp.tile(a, (4,) + (1,) * (a.ndim - 1))  # noqa: E731
    args = jax.tree.map(four, [jnp.ones((2, 40, 3)), rows, inverse])
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))

    def f(x, rows, inverse):
        return jnp.square(collapse(jnp.sin(expand(x, rows, inverse)), rows, inverse)).sum()

    placed = [jax.device_put(a, spec) for a in args]
    text = jax.jit(jax.grad(f), out_shardings=spec).lower(*placed).compile().as_text()
    assert not any(op in text for op in ("all-gather", "all-reduce", "all-to-all"))
