"""QLoRA: a model on frozen matrices in few bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jalign import embedded
from jalign.models import hub
from jalign.models.adapters import lora
from jalign.models.functional import functional
from jalign.models.quant import Quantized, dequantize, quantize

TOKENS = jnp.arange(48).reshape(2, 24) % 400
POSITIONS = jnp.broadcast_to(jnp.arange(24), (2, 24))


def logits(model):
    return model.logits(model(TOKENS, POSITIONS)[0])


@pytest.fixture(scope="module")
def model():
    return hub.load(embedded.path())


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_the_forward_pass_is_that_of_the_decoded_matrices(model, kind):
    small = quantize(model, kind)
    assert isinstance(small.layers.attn.q.kernel, Quantized)
    assert small.layers.attn.q.kernel.shape == model.layers.attn.q.kernel.shape
    np.testing.assert_allclose(logits(small), logits(dequantize(small)), atol=1e-4)
    # and near that of the model, int8 nearer
    off = jnp.abs(jax.nn.log_softmax(logits(small)) - jax.nn.log_softmax(logits(model))).mean()
    assert 0 < off < {"nf4": 1.0, "int8": 0.1}[kind]


@pytest.mark.parametrize("kind, error", [("w8a8", 0.05), ("fp8", 0.2)])
def test_products_in_8_bits_keep_the_log_probabilities(model, kind, error):
    small = quantize(model, kind)
    off = jnp.abs(jax.nn.log_softmax(logits(small)) - jax.nn.log_softmax(logits(model))).mean()
    stored = jnp.abs(logits(small) - logits(dequantize(small))).mean()
    assert 0 < off < error and stored > 1e-3  # the tokens are rounded, too


def test_only_adapters_have_gradients(model):
    small = lora.add_lora(quantize(model, "nf4"), rank=2, alpha=4.0, rngs=nnx.Rngs(params=0))
    _, params, base = functional(small, lora.trainable_filter(small))
    names = {
        type(x) for x in jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, nnx.Variable))
    }
    assert names == {nnx.LoRAParam}
    graphdef, params, base = nnx.split(small, lora.trainable_filter(small), ...)
    gradient = jax.grad(lambda p: logits(nnx.merge(graphdef, p, base)).sum())(params)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(gradient))
    plain = lora.add_lora(
        dequantize(quantize(model, "nf4")), rank=2, alpha=4.0, rngs=nnx.Rngs(params=0)
    )
    graphdef, params, base = nnx.split(plain, lora.trainable_filter(plain), ...)
    expected = jax.grad(lambda p: logits(nnx.merge(graphdef, p, base)).sum())(params)
    # Sums of terms up to about a thousand, in another order: float32 rounds the largest by 1e-4.
    largest = max(float(jnp.abs(b).max()) for b in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * largest, rtol=1e-3)


def test_merged_adapters_stand_on_the_decoded_matrices(model):
    small = lora.add_lora(
        quantize(model, "nf4"), rank=2, alpha=4.0, targets="attn.q", rngs=nnx.Rngs(params=0)
    )
    small.layers.attn.q.lora.b = nnx.LoRAParam(
        jnp.ones_like(small.layers.attn.q.lora.b[...]) * 0.01
    )
    merged = dequantize(lora.merge(small))
    assert isinstance(merged.layers.mlp.up.kernel, nnx.Param)
    np.testing.assert_allclose(logits(merged), logits(small), atol=1e-3)


def test_quantising_twice_is_refused(model):
    with pytest.raises(ValueError, match=r"layers\.attn\.\w is quantized already"):
        quantize(quantize(model, "nf4"), "int8")
