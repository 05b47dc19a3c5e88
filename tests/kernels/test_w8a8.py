"""Products in 8 bits against hand values and against products of the decoded matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.kernels.w8a8 import decode, encode, quantized_matmul


def test_a_product_by_hand():
    # scales of the outputs 0.5 and 0.25, of the token 2; codes [127 -64; 10 127], [127 -20]
    w = jnp.array([[63.5, -16.1], [5.1, 31.75]])
    x = jnp.array([[254.0, -40.6]])
    arrays = encode(w, "w8a8")
    np.testing.assert_array_equal(arrays["codes"], [[127, -64], [10, 127]])
    np.testing.assert_allclose(arrays["channel_scales"], [[0.5, 0.25]], rtol=1e-6)
    y = [[2 * 0.5 * (127 * 127 - 20 * 10), 2 * 0.25 * (127 * -64 - 20 * 127)]]
    np.testing.assert_allclose(quantized_matmul(x, arrays), y, rtol=1e-6)


def test_the_gradient_by_hand_is_that_of_the_decoded_matrix():
    w = jnp.array([[63.5, -16.1], [5.1, 31.75]])
    arrays = encode(w, "w8a8")
    gradient = jax.grad(lambda x: (quantized_matmul(x, arrays) * jnp.array([3.0, 7.0])).sum())
    # dy W^T with W = [63.5 -16; 5 31.75]
    expected = [[3 * 63.5 - 7 * 16, 3 * 5 + 7 * 31.75]]
    np.testing.assert_allclose(gradient(jnp.array([[254.0, -40.6]])), expected, rtol=1e-6)


# a step of max / 127, rounded on both sides: sqrt(2 / 12) * 3 / 127 = 0.0096 of normal entries
@pytest.mark.parametrize("kind, error", [("w8a8", 0.012), ("fp8", 0.04)])
def test_products_are_near_those_of_the_matrix(kind, error):
    k1, k2 = jax.random.split(jax.random.key(0))
    x, w = jax.random.normal(k1, (8, 256)), jax.random.normal(k2, (3, 256, 40))
    arrays = encode(w, kind)
    assert arrays["codes"].dtype.itemsize == 1 and arrays["codes"].shape == w.shape
    assert jnp.abs(decode(arrays) - w).max() < jnp.abs(w).max() * (
        1 / 254 if kind == "w8a8" else 1 / 16
    )
    one = jax.tree.map(lambda a: a[1], arrays)
    off = quantized_matmul(x, one) - x @ w[1]
    assert 0 < jnp.sqrt(jnp.mean(off**2) / jnp.mean((x @ w[1]) ** 2)) < error


def test_the_product_is_one_of_bytes():
    arrays = encode(jnp.ones((64, 32)), "w8a8")
    text = jax.jit(quantized_matmul).lower(jnp.ones((16, 64), jnp.bfloat16), arrays).as_text()
    (product,) = [line for line in text.splitlines() if "dot_general" in line]
    assert "(tensor<16x64xi8>, tensor<64x32xi8>) -> tensor<16x32xi32>" in product


def test_zeros_stay_zeros():
    arrays = encode(jnp.zeros((4, 3)), "w8a8")
    np.testing.assert_array_equal(quantized_matmul(jnp.zeros((2, 4)), arrays), np.zeros((2, 3)))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'int4' is unknown; there is: w8a8, fp8"):
        encode(jnp.ones((2, 2)), "int4")
