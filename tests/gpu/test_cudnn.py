"""cuDNN's attention on a card gives what XLA's gives, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jalign.kernels.attention import attention
from jalign.kernels.devices import platform_of

CUDA = platform_of(jax.devices()[0]) == "cuda"
pytestmark = pytest.mark.skipif(not CUDA, reason="cuDNN needs an NVIDIA card")


def value_and_gradients(implementation, window, q, k, v, weights):
    def f(q, k, v):
        y = attention(
            q, k, v, scale=q.shape[-1] ** -0.5, window=window, implementation=implementation
        )
        return (y.astype(jnp.float32) * weights).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(f, (0, 1, 2), has_aux=True))(q, k, v)
    return [np.asarray(x, np.float32) for x in (y, *gradients)]


@pytest.mark.parametrize("window", [None, 300])
@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_cudnn_has_the_values_and_gradients_of_xla_to_a_bfloat16s_rounding(head_dim, window):
    keys = jax.random.split(jax.random.key(head_dim), 4)
    q, weights = (jax.random.normal(key, (2, 640, 4, head_dim)) for key in keys[:2])
    k, v = (jax.random.normal(key, (2, 640, 2, head_dim)) for key in keys[2:])
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    # the exact values of the rounded inputs
    with jax.default_matmul_precision("float32"):
        wide = [x.astype(jnp.float32) for x in half]
        exact = value_and_gradients("xla", window, *wide, weights)
    for name in ("cudnn", "xla"):
        for got, want in zip(value_and_gradients(name, window, *half, weights), exact, strict=True):
            off = np.linalg.norm(got - want) / np.linalg.norm(want)
            assert off < 2e-2, (name, off)
    # a program that falls back to another kernel would pass as well
    program = jax.jit(lambda *x: attention(*x, scale=1.0, window=window, implementation="cudnn"))
    assert "__cudnn$fmha" in program.lower(*half).compile().as_text()
