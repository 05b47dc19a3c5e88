"""Products of sorted rows with the matrix of their group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.kernels import grouped_batches, grouped_tpu
from jalign.kernels.grouped import grouped_matmul, grouped_matmul_of_layer
from jalign.kernels.grouped_batches import in_batches
from jalign.kernels.grouped_tpu import columns, ragged, tiling, transposed

SIZES = jnp.array([0, 33, 1, 0, 50, 5])  # tiles of 16 end in other groups; 11 rows have no group
ROWS, INSIDE = 100, 89


def drawn(dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(ROWS, 7)).astype(dtype), rng.normal(size=(6, 7, 9)).astype(dtype)


def row_by_row(x, w):
    of_row = np.repeat(np.arange(6), SIZES)
    y = np.einsum("mk,mkn->mn", x[: len(of_row)], w[of_row])
    return y


@pytest.fixture(params=[grouped_matmul, in_batches, ragged], ids=["cpu", "gpu", "tpu"])
def matmul(request):
    """Of this platform, of GPUs, and of TPUs."""
    return request.param


def test_each_row_is_multiplied_with_the_matrix_of_its_group(matmul):
    x, w = drawn()
    y = matmul(jnp.asarray(x), jnp.asarray(w), SIZES)
    np.testing.assert_allclose(y[:INSIDE], row_by_row(x, w), atol=1e-5)


def test_the_gradients_are_those_of_the_product(matmul):
    x, w = drawn()
    dy = np.random.default_rng(1).normal(size=(ROWS, 9)).astype(np.float32)
    _, pull = jax.vjp(lambda x, w: matmul(x, w, SIZES), jnp.asarray(x), jnp.asarray(w))
    dx, dw = pull(jnp.asarray(dy))
    np.testing.assert_allclose(dx[:INSIDE], row_by_row(dy, w.swapaxes(1, 2)), atol=1e-5)
    ends = np.cumsum(SIZES)
    want = [x[a:b].T @ dy[a:b] for a, b in zip(ends - SIZES, ends, strict=True)]
    np.testing.assert_allclose(dw, want, atol=1e-4)


def test_it_is_the_product_that_tpus_run(matmul):
    x, w = (jnp.asarray(a, jnp.bfloat16) for a in drawn())
    y = matmul(x, w, SIZES)
    want = jax.lax.ragged_dot(x, w, SIZES, preferred_element_type=jnp.float32)
    np.testing.assert_array_equal(y[:INSIDE], want[:INSIDE].astype(jnp.bfloat16))


def test_many_batches_of_tiles_are_one_product(monkeypatch):
    """Two tiles to a batch, the last batch not full; a size of a tile that no group divides."""
    x, w = (jnp.asarray(a) for a in drawn())
    want = in_batches(x, w, SIZES)
    monkeypatch.setattr("jalign.kernels.grouped_batches.MOST_TILES", 2)
    np.testing.assert_allclose(in_batches(x, w, SIZES), want, atol=1e-5)
    assert not want[INSIDE:].any()


def test_a_row_has_the_same_bits_wherever_it_lies(matmul):
    x, w = (jnp.asarray(a) for a in drawn())
    y = matmul(x, w, SIZES)
    order = np.arange(ROWS)
    order[:33] = np.random.default_rng(2).permutation(33)  # within the second group
    again = matmul(x[order], w, SIZES)
    np.testing.assert_array_equal(again[:INSIDE], y[order][:INSIDE])


def test_the_gradient_of_rows_on_a_tpu_reads_matrices_as_they_lie():
    """In Pallas's interpreter: groups that end within tiles, empty ones, rows without a group."""
    rng = np.random.default_rng(0)
    sizes = jnp.array([0, 130, 1, 0, 90, 20])
    w = jnp.asarray(rng.normal(size=(6, 256, 128)), jnp.float32)
    dy = jnp.asarray(rng.normal(size=(384, 128)), jnp.float32)
    dx = transposed(dy, w, sizes, interpret=True)
    of_row = np.repeat(np.arange(6), sizes)
    want = np.einsum("mn,mkn->mk", dy[: len(of_row)], np.asarray(w)[of_row])
    np.testing.assert_allclose(dx[: len(of_row)], want, rtol=1e-5, atol=1e-4)


def tpu_in_interpreter(*args, **options):
    return grouped_tpu.of_layer(*args, interpret=True, **options)


@pytest.mark.parametrize("rows", [384, 304])  # on TPUs blocks of 128 rows, and of 16
@pytest.mark.parametrize("product", [tpu_in_interpreter, grouped_batches.of_layer])
def test_the_matrices_of_a_layer_are_read_in_their_stack(product, rows):
    rng = np.random.default_rng(0)
    sizes = jnp.array([0, 130, 1, 0, 90, 20])
    stack = jnp.asarray(rng.normal(size=(3, 6, 256, 128)), jnp.float32)
    x = jnp.asarray(rng.normal(size=(rows, 256)), jnp.float32)
    dy = jnp.asarray(rng.normal(size=(rows, 128)), jnp.float32)
    of_row = np.repeat(np.arange(6), sizes)
    inside = len(of_row)
    for layer in range(3):
        w = np.asarray(stack[layer])[of_row]
        y = product(x, stack, jnp.int32(layer), sizes, transposed=False)
        np.testing.assert_allclose(y[:inside], np.einsum("mk,mkn->mn", x[:inside], w), atol=1e-4)
        dx = product(dy, stack, jnp.int32(layer), sizes, transposed=True)
        np.testing.assert_allclose(dx[:inside], np.einsum("mn,mkn->mk", dy[:inside], w), atol=1e-4)


def test_the_gradients_of_a_stack_are_those_of_the_layer():
    x, w = (jnp.asarray(a) for a in drawn())
    stack = jnp.stack([w + 1, w, w - 1])
    _, pull = jax.vjp(lambda x, w: grouped_matmul_of_layer(x, w, jnp.int32(1), SIZES), x, stack)
    _, pull_one = jax.vjp(lambda x, w: grouped_matmul(x, w, SIZES), x, w)
    dy = jnp.asarray(np.random.default_rng(1).normal(size=(ROWS, 9)), jnp.float32)
    (dx, by_stack), (want, by_matrix) = pull(dy), pull_one(dy)
    np.testing.assert_allclose(dx[:INSIDE], want[:INSIDE], atol=1e-6)
    np.testing.assert_array_equal(by_stack[1], by_matrix)
    assert not by_stack[0].any() and not by_stack[2].any()


def test_a_stack_whose_matrices_fit_no_block_is_sliced():
    x, w = (jnp.asarray(a) for a in drawn())
    y = grouped_tpu.of_layer(x, jnp.stack([w + 1, w]), jnp.int32(1), SIZES, transposed=False)
    np.testing.assert_array_equal(y[:INSIDE], ragged(x, w, SIZES)[:INSIDE])


def test_rows_of_a_block_divide_the_rows():
    assert tiling(32768, 2048, 768, 2) == (128, 2048, 768)
    assert tiling(192, 2048, 768, 2) == (64, 2048, 768)
    assert tiling(16, 768, 2048, 2) == (16, 768, 2048)
    assert tiling(8, 2048, 768, 2) is None  # 16 bits lie in tiles of 16 rows
    assert tiling(128, 2880, 2880, 2) is None


def test_a_block_of_a_matrix_fits_on_the_chip():
    assert columns(2048, 768, 2) == 2048  # Qwen3 30B-A3B: whole matrices
    assert columns(768, 2048, 2) == 768
    assert columns(4096, 14336, 2) is None  # Mixtral 8x7B: too wide
    assert columns(14336, 4096, 2) == 512  # its other matrix
    assert columns(2880, 2880, 2) is None  # GPT-OSS: no multiple of 128
