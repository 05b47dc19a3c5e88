"""Divergences between two blocked heads, against plain softmax and by hand."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.models.divergence import jsd, kl
from jalign.models.topk_negatives import topk_negatives

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def log_softmax(h, w, vocab_axis, softcap=None, scale=1.0, temperature=1.0):
    z = scale * (h @ (w.T if vocab_axis == 0 else w))
    z = z if softcap is None else softcap * jnp.tanh(z / softcap)
    return jax.nn.log_softmax(z / temperature, -1)


def same(a, b, tolerance=1e-5):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), a, b
    )


def test_kl_is_the_one_computed_by_hand():
    p, q = (0.5, 0.3, 0.2), (0.1, 0.6, 0.3)
    heads = [jnp.log(jnp.array([x])) + c for x, c in ((p, 3.0), (q, -2.0))]
    one = jnp.ones((1, 1))
    value = kl(one, heads[0], one, heads[1], vocab_axis=1, other_vocab_axis=1, block=(1, 2))
    same(value, [sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))])


def test_jsd_is_the_one_computed_by_hand():
    p, q, b = (0.5, 0.3, 0.2), (0.1, 0.6, 0.3), 0.25
    m = [b * y + (1 - b) * x for x, y in zip(p, q, strict=True)]
    to_m = [sum(x * math.log(x / z) for x, z in zip(d, m, strict=True)) for d in (p, q)]
    heads = [jnp.log(jnp.array([x])) + c for x, c in ((p, 3.0), (q, -2.0))]
    one, axes = jnp.ones((1, 1)), {"vocab_axis": 1, "other_vocab_axis": 1, "block": (1, 2)}
    same(jsd(one, heads[0], one, heads[1], beta=b, **axes), [b * to_m[1] + (1 - b) * to_m[0]])


def test_at_its_ends_jsd_is_the_two_kls():
    args = (draw(7, 3), draw(19, 3), draw(7, 4), draw(4, 19))
    names = {"vocab_axis": 0, "other_vocab_axis": 1}
    back = {"vocab_axis": 1, "other_vocab_axis": 0}
    same(jsd(*args, beta=1.0, **names), kl(*args, **names))
    same(jsd(*args, beta=0.0, **names), kl(*args[2:], *args[:2], **back))
    near = jsd(*args, beta=1e-4, **names) / 1e-4
    same(near, jsd(*args, beta=0.0, **names), 5e-3)


@pytest.mark.parametrize("arguments", [(0, 1, 2, 3), (0,), (0, 1), (3,)])
def test_kl_has_the_values_and_gradients_of_a_plain_softmax(arguments):
    args = draw(2, 13, 6), draw(57, 6), draw(2, 13, 4), draw(4, 57)
    g = draw(2, 13)

    def ours(h, w, h2, w2):
        numbers = {"softcap": 3.0, "other_scale": 0.5, "temperature": 1.3, "block": (5, 16)}
        return (g * kl(h, w, h2, w2, vocab_axis=0, other_vocab_axis=1, **numbers)).sum()

    def expected(h, w, h2, w2):
        a = log_softmax(h, w, 0, softcap=3.0, temperature=1.3)
        b = log_softmax(h2, w2, 1, scale=0.5, temperature=1.3)
        return (g * (jnp.exp(a) * (a - b)).sum(-1)).sum()

    a = jax.jit(jax.value_and_grad(ours, arguments))(*args)
    same(a, jax.jit(jax.value_and_grad(expected, arguments))(*args))


@pytest.mark.parametrize("arguments", [(0, 1, 2, 3), (0,), (0, 1), (3,)])
def test_jsd_has_the_values_and_gradients_of_a_plain_softmax(arguments):
    args = draw(2, 13, 6), draw(57, 6), draw(2, 13, 4), draw(4, 57)
    g = draw(2, 13)

    def ours(h, w, h2, w2):
        numbers = {"softcap": 3.0, "other_scale": 0.5, "temperature": 1.3, "block": (5, 16)}
        axes = {"vocab_axis": 0, "other_vocab_axis": 1}
        return (g * jsd(h, w, h2, w2, beta=0.3, **axes, **numbers)).sum()

    def expected(h, w, h2, w2):
        a = log_softmax(h, w, 0, softcap=3.0, temperature=1.3)
        b = log_softmax(h2, w2, 1, scale=0.5, temperature=1.3)
        m = jnp.log(0.3 * jnp.exp(b) + 0.7 * jnp.exp(a))
        each = 0.3 * jnp.exp(b) * (b - m) + 0.7 * jnp.exp(a) * (a - m)
        return (g * each.sum(-1)).sum()

    a = jax.jit(jax.value_and_grad(ours, arguments))(*args)
    same(a, jax.jit(jax.value_and_grad(expected, arguments))(*args))


def test_no_logits_of_all_tokens_exist_in_the_gradient_of_a_divergence():
    q, v, d = 512, 65536, 32
    shapes = [(q, d), (v, d), (q, d), (v, d)]
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    axes = {"vocab_axis": 0, "other_vocab_axis": 0}

    def bytes_of(f):
        grad = jax.jit(jax.grad(lambda *a: f(*a).sum(), (0, 1)))
        return grad.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    def naive(h, w, h2, w2):
        a, b = log_softmax(h, w, 0), log_softmax(h2, w2, 0)
        m = jnp.logaddexp(a, b) - math.log(2)
        return (0.5 * jnp.exp(b) * (b - m) + 0.5 * jnp.exp(a) * (a - m)).sum(-1)

    assert bytes_of(functools.partial(jsd, beta=0.5, **axes)) <= bytes_of(naive) / 10


def test_competitors_are_the_likeliest_other_tokens():
    h, w = draw(2, 11, 5), draw(5, 43)
    y = jnp.asarray(RNG.integers(0, 43, (2, 11)))
    z = np.array(h @ w)
    np.put_along_axis(z, np.asarray(y)[..., None], -np.inf, -1)
    best = np.argsort(-z, -1)
    numbers = {"vocab_axis": 1, "block": (4, 16)}
    first = topk_negatives(h, w, y, top_k=1, key=None, **numbers)
    np.testing.assert_array_equal(first, best[..., 0])
    draw_one = jax.jit(lambda key: topk_negatives(h, w, y, top_k=3, key=key, **numbers))
    drawn = np.stack([draw_one(jax.random.key(i)) for i in range(200)])
    assert (drawn[..., None] == best[..., :3]).any(-1).all()
    shares = (drawn[..., None] == best[..., :3]).mean(0)
    top = np.take_along_axis(z, best[..., :3], -1)
    expected = np.exp(top) / np.exp(top).sum(-1, keepdims=True)
    assert np.abs(shares - expected).max() < 0.15


def test_a_top_k_that_the_vocabulary_does_not_have_is_an_error():
    with pytest.raises(ValueError, match=r"top_k must be in \[1, 4\]"):
        topk_negatives(draw(3, 2), draw(2, 5), jnp.zeros(3, int), top_k=5, key=None, vocab_axis=1)


def test_heads_of_different_vocabularies_are_an_error():
    h, w = jnp.ones((3, 4)), jnp.ones((5, 4))
    with pytest.raises(ValueError, match="5 and 4 entries"):
        kl(h, w, h, w, vocab_axis=0, other_vocab_axis=1)
    with pytest.raises(ValueError, match="beta must be in"):
        jsd(h, w, h, w, beta=1.5, vocab_axis=0, other_vocab_axis=0)
