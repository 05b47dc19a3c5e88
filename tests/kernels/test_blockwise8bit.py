"""8-bit dynamic codes: levels worked out by hand, errors, shapes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.kernels.blockwise8bit import Quantized8bit, blocks, decode, encode, levels
from jalign.kernels.nf4 import decode as decode_linear
from jalign.kernels.nf4 import encode as encode_linear

TOP = 0.1 + 0.9 * 127.5 / 128  # of the paper's levels; ours are shares of it


def wide(shape, octaves=3.0):
    """Entries of both signs over many orders of magnitude."""
    a, b = jax.random.split(jax.random.key(0))
    return jax.random.normal(a, shape) * jnp.exp(octaves * jax.random.normal(b, shape))


def test_levels_are_the_middles_of_equal_parts_of_each_decade():
    table = levels(8)
    assert table.shape == (256,) and (np.diff(table) > 0).all()
    by_hand = {
        0: 0.0,
        1: 0.55e-7,  # the one part of 1e-7..1e-6 (times 0.1)
        2: 0.325e-6,  # the first half of the next decade: 0.1 + 0.9 / 4
        3: 0.775e-6,
        128: 0.1 + 0.9 * 0.5 / 128,
        255: TOP,
    }
    for code, level in by_hand.items():
        np.testing.assert_allclose(table[code], level / TOP, rtol=1e-6)


def test_codes_of_a_few_entries_worked_out_by_hand():
    x = jnp.zeros((32, 128)).at[0, :5].set(jnp.array([2.0, -2.0, 1.2, -2e-5, 1e-7]))
    coded = encode(x, signed=True)
    assert coded.codes.dtype == jnp.int8 and coded.scales.shape == (32, 1)
    assert coded.scales[0, 0] == 2.0 and coded.scales[1, 0] == 0.0
    # 1.2 / 2 is 0.6: 64 parts of 0.9 / 64 from 0.1, each over the top level 0.99296875:
    # (0.6 * 0.99296875 - 0.1) * 64 / 0.9 = 35.26, so code 64 + 35.
    # 1e-5 is 9.93e-6 of the paper's: parts of 0.9e-5 / 4 ... of 1e-6..1e-5 are two, the second
    # 0.775e-5 is nearer than the first of the next decade, 2.125e-5. 5e-8 rounds to 0.
    assert coded.codes[0, :6].tolist() == [127, -127, 99, -3, 0, 0]
    np.testing.assert_allclose(
        decode(coded)[0, 2], 2 * (0.1 + 0.9 * 35.5 / 64) / (0.1 + 0.9 * 63.5 / 64), rtol=1e-6
    )


@pytest.mark.parametrize("signed", [True, False])
def test_every_entry_becomes_the_nearest_level(signed):
    x = wide((16, 256)) if signed else wide((16, 256)) ** 2
    coded = encode(x, signed=signed)
    table = levels(7 if signed else 8)
    share = np.asarray(x).reshape(16, 2, 128) / np.asarray(coded.scales)[..., None]
    nearest = np.abs(np.abs(share)[..., None] - table).argmin(-1)
    if not signed:  # what is not 0 stays so
        nearest = np.maximum(nearest, 1)
    codes = nearest * np.sign(share)
    np.testing.assert_array_equal(np.asarray(coded.codes).reshape(codes.shape), codes)
    found = (table[nearest] * np.sign(share) * np.asarray(coded.scales)[..., None]).reshape(x.shape)
    np.testing.assert_allclose(decode(coded), found, rtol=1e-6)
    again = encode(decode(coded), signed=signed)
    np.testing.assert_array_equal(again.codes, coded.codes)


def test_second_moments_are_within_half_a_level_where_linear_codes_lose_them():
    x = jnp.exp(jax.random.uniform(jax.random.key(1), (64, 256), minval=-13, maxval=0))
    error = jnp.abs(decode(encode(x, signed=False)) / x - 1)
    # the coarsest decade above 1e-6 of the largest has levels at 0.325, 0.775 and 2.125
    assert error.max() < 0.5 and error.mean() < 0.05
    linear = decode_linear(encode_linear(x, "int8"))
    assert jnp.mean(linear == 0) > 0.4


def test_nothing_that_is_not_negative_becomes_0_unless_it_is():
    x = jnp.zeros((8, 512)).at[:, ::3].set(1e-20).at[:, 7].set(1.0)
    np.testing.assert_array_equal(decode(encode(x, signed=False)) > 0, x > 0)


def test_blocks_lie_along_the_last_axis_that_allows_large_ones():
    assert blocks((2, 64, 256)) == (2, 128)
    assert blocks((2, 4096, 16)) == (1, 128)  # the narrow factor of an adapter
    assert blocks((128, 4099)) == (0, 128)  # a vocabulary that nothing divides
    assert blocks((8, 511)) is None  # less than 4096 entries
    assert blocks((4099, 3)) is None
    x = wide((2, 4096, 16))
    assert encode(x, signed=True).scales.shape == (2, 32, 16)
    assert jnp.abs(decode(encode(x, signed=True)) - x).max() < 0.01 * jnp.abs(x).max()
    with pytest.raises(ValueError, match=r"shape \(8, 511\) is not coded"):
        encode(jnp.ones((8, 511)), signed=True)


def test_codes_are_a_pytree_and_the_same_under_jit():
    x = wide((32, 256))
    eager = encode(x, signed=True)
    compiled = jax.jit(lambda x: encode(x, signed=True))(x)
    assert isinstance(compiled, Quantized8bit)
    chex.assert_trees_all_equal(eager, compiled, strict=True)
