"""Matrices in 4 and 8 bits: their codes by hand, their products, what is kept for gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.kernels.nf4 import NF4, decode, encode, quantized_matmul


def matrix(i=128, o=96, seed=0):
    return jax.random.normal(jax.random.key(seed), (i, o)) * jnp.linspace(0.5, 2, o)


def test_a_block_of_levels_times_its_scale_is_kept_exactly():
    levels = np.resize(NF4, 64)
    w = np.stack([levels * 3.0, -levels * 3.0 * np.sign(-1)], 1).astype(np.float32)
    parts = encode(jnp.asarray(w), "nf4")  # both columns have the scale 3: their mean
    np.testing.assert_allclose(decode(parts), w, atol=1e-6)
    assert parts["codes"].dtype == jnp.uint8 and parts["codes"].shape == (32, 2)
    assert int(parts["codes"][0, 0]) == 0 | (1 << 4)  # the first two levels in one byte


def test_int8_is_at_most_half_a_step_off():
    w = matrix()
    parts = encode(w, "int8")
    blocks = np.abs(np.asarray(w)).reshape(2, 64, 96).max(1)
    # the scale itself is within half a step of the double quantization
    slack = np.asarray(parts["steps"]).repeat(32, 1) / 2
    step = np.repeat((blocks + slack) / 127, 64, 0)
    clipped = np.repeat(slack, 64, 0)
    assert (np.abs(np.asarray(decode(parts) - w)) <= step / 2 + clipped + 1e-6).all()


@pytest.mark.parametrize("kind, error, bits", [("nf4", 0.1, 4.14), ("int8", 0.01, 8.14)])
def test_the_error_of_normal_weights_and_the_bits_of_an_entry(kind, error, bits):
    w = jax.random.normal(jax.random.key(1), (2, 512, 512)) * 0.02
    parts = encode(w, kind)
    off = jnp.linalg.norm(decode(parts) - w) / jnp.linalg.norm(w)
    assert error / 3 < off < error
    assert 8 * sum(x.nbytes for x in parts.values()) / w.size < bits


def test_stacked_matrices_are_coded_one_by_one():
    w = jnp.stack([matrix(seed=1), matrix(seed=2)])
    whole = decode(encode(w, "nf4"))
    for i in range(2):
        np.testing.assert_array_equal(whole[i], decode(encode(w[i], "nf4")))


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_product_and_its_gradient_are_those_of_the_decoded_matrix(kind):
    parts, x = encode(matrix(), kind), jax.random.normal(jax.random.key(3), (5, 128))
    w = decode(parts)
    np.testing.assert_allclose(quantized_matmul(x, parts), x @ w, atol=1e-5)
    f = lambda x: jnp.sin(quantized_matmul(x, parts)).sum()  # noqa: E731
    g = lambda x: jnp.sin(x @ w).sum()  # noqa: E731
    np.testing.assert_allclose(jax.grad(f)(x), jax.grad(g)(x), atol=1e-5)


def test_only_codes_are_kept_for_the_backward_pass():
    parts, x = encode(matrix(), "nf4"), jnp.ones((5, 128))
    _, pull = jax.vjp(lambda x: quantized_matmul(x, parts), x)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pull) if hasattr(leaf, "nbytes"))
    assert kept < 128 * 96  # a byte per entry would be more


def test_odd_shapes_take_smaller_blocks():
    w = matrix(i=90, o=50)
    off = jnp.linalg.norm(decode(encode(w, "nf4")) - w) / jnp.linalg.norm(w)
    assert off < 0.1


def test_a_column_of_zeros_stays_zero():
    w = matrix().at[:, 3].set(0.0)
    for kind in ("nf4", "int8"):
        np.testing.assert_array_equal(decode(encode(w, kind))[:, 3], 0.0)


def test_what_cannot_be_coded_is_refused():
    with pytest.raises(ValueError, match="'nf3' is unknown; there is: nf4, int8"):
        encode(matrix(), "nf3")
    with pytest.raises(ValueError, match="two inputs to a byte, and this matrix has 3"):
        encode(jnp.ones((3, 4)), "nf4")
